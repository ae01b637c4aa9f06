//! The streams in which the node records its scavenges. Up to 21.10 they are the only source about
//! scavenges (http-api §1.7).

use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::timestamp;
use crate::log::{self, Kind};
use crate::recording::Version;

/// Ticks of 100 ns from the year 1 to 1970.
const UNIX_EPOCH_TICKS: i64 = 621_355_968_000_000_000;

/// An event of a `$scavenges-ID` stream.
pub(crate) struct Event {
    pub(crate) stream: String,
    pub(crate) number: i64,
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    pub(crate) data: String,
    pub(crate) time: SystemTime,
}

/// The stream that a path asks for: `$scavenges`, or the stream of one scavenge.
pub(crate) fn name(path: &str) -> Option<String> {
    let path = path.replace("%24", "$");
    let rest = path.strip_prefix("/streams/$scavenges")?;
    if rest.is_empty() {
        return Some("$scavenges".to_owned());
    }
    let id = rest.strip_prefix('/')?.strip_suffix("/head/20")?;
    Some(format!("$scavenges-{id}"))
}

/// All events about scavenges in the log, oldest first.
pub(crate) fn read(db: &Path, writer: Option<i64>) -> Result<Vec<Event>> {
    let writer = u64::try_from(writer.unwrap_or(0))?;
    let mut events = Vec::new();
    for chunk in log::chunks(db)? {
        for record in chunk.records(writer)? {
            if let Kind::Prepare {
                stream,
                number,
                event,
                event_type,
                data,
                ticks,
                ..
            } = record.kind
                && stream.starts_with("$scavenges-")
            {
                let nanoseconds = u64::try_from((ticks - UNIX_EPOCH_TICKS).max(0))? * 100;
                events.push(Event {
                    stream,
                    number,
                    id: event,
                    kind: event_type,
                    data: String::from_utf8_lossy(&data).into_owned(),
                    time: SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(nanoseconds),
                });
            }
        }
    }
    Ok(events)
}

/// A stream as an Atom feed in JSON, newest first. Returns `None` if there is no such stream.
pub(crate) fn feed(
    name: &str,
    events: Vec<Event>,
    address: SocketAddr,
    version: Version,
) -> Option<Value> {
    let linked = name == "$scavenges";
    let mut chosen = events;
    if linked {
        chosen.retain(|event| {
            matches!(
                event.kind.as_str(),
                "$scavengeStarted" | "$scavengeCompleted"
            )
        });
    } else {
        chosen.retain(|event| event.stream == name);
    }
    if chosen.is_empty() {
        return None;
    }

    let base = format!("http://{address}/streams");
    let own = format!("{base}/{}", name.replace('$', "%24"));
    let author = if version.major >= 25 {
        "Kurrent"
    } else {
        "EventStore"
    };

    let mut entries = Vec::new();
    for (position, event) in chosen.iter_mut().enumerate().rev().take(20) {
        // The recorded node had another address.
        if let Ok(mut data) = serde_json::from_str::<Value>(&event.data)
            && data.get("nodeEndpoint").is_some()
        {
            data["nodeEndpoint"] = json!(address.to_string());
            event.data = format!("{data:#}");
        }
        entries.push(entry(event, position, linked, name, &base, author, version));
    }

    let previous = format!("{own}/{}/forward/20", chosen.len());
    Some(without_nulls(
        json!({
            "title": format!("Event stream '{name}'"),
            "id": own,
            "updated": chosen.last().map(|event| timestamp(event.time)),
            "streamId": name,
            "author": { "name": author },
            "headOfStream": true,
            "selfUrl": own,
            "eTag": format!("{};{}", chosen.len() - 1, 807_852_864),
            "links": [
                { "uri": own, "relation": "self", "type": null },
                { "uri": format!("{own}/head/backward/20"), "relation": "first", "type": null },
                { "uri": previous, "relation": "previous", "type": null },
                { "uri": format!("{own}/metadata"), "relation": "metadata", "type": null },
            ],
            "entries": entries,
        }),
        version,
    ))
}

fn entry(
    event: &Event,
    position: usize,
    linked: bool,
    name: &str,
    base: &str,
    author: &str,
    version: Version,
) -> Value {
    let own = format!(
        "{base}/{}/{}",
        event.stream.replace('$', "%24"),
        event.number
    );
    let shown_number = if linked {
        i64::try_from(position).unwrap_or(0)
    } else {
        event.number
    };

    let mut entry = json!({
        "eventId": event.id,
        "eventType": event.kind,
        "eventNumber": event.number,
        "data": event.data,
        "metaData": null,
        "linkMetaData": "",
        "streamId": event.stream,
        "isJson": true,
        "isMetaData": false,
        "isLinkMetaData": false,
        "isRedacted": false,
        "positionEventNumber": shown_number,
        "positionStreamId": name,
        "title": format!("{}@{}", event.number, event.stream),
        "id": own,
        "updated": timestamp(event.time),
        "author": { "name": author },
        "summary": if linked { "$>" } else { event.kind.as_str() },
        "retryCount": null,
        "content": null,
        "links": [
            { "uri": own, "relation": "edit", "type": null },
            { "uri": own, "relation": "alternate", "type": null },
        ],
    });

    if version < Version::new(23, 6)
        && let Some(entry) = entry.as_object_mut()
    {
        entry.shift_remove("isRedacted");
    }
    entry
}

/// Removes all nulls, as 20.10 does.
fn without_nulls(mut value: Value, version: Version) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(object) => {
                object.retain(|_, inner| !inner.is_null());
                object.values_mut().for_each(strip);
            }
            Value::Array(array) => array.iter_mut().for_each(strip),
            _ => {}
        }
    }

    if version < Version::new(21, 10) {
        strip(&mut value);
    }
    value
}
