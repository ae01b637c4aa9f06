//! The recorded answers of the real node of each version. The API puts its own values into them.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::recording::{Version, fixtures};

/// The answers of one version.
pub(crate) struct Templates {
    pub(crate) info: Value,
    pub(crate) options: Value,
    pub(crate) ping: Value,
    pub(crate) login: Value,
    pub(crate) stats: Value,
    /// One member of the gossip.
    pub(crate) member: Value,
}

impl Templates {
    pub(crate) fn load(version: Version) -> Result<Self> {
        let exchanges = exchanges(version)?;
        let body = |path: &str| answer(&exchanges, path);

        // The 20.10 node never answered this (fixtures/http/20.10.json). Its members look like those
        // of 21.10.
        let gossip = match body("/gossip") {
            Ok(gossip) => gossip,
            Err(_) => answer(&self::exchanges(Version::new(21, 10))?, "/gossip")?,
        };
        let member = gossip.pointer("/members/0");
        let member = member.context("a gossip without members")?.clone();

        Ok(Self {
            info: body("/info")?,
            options: body("/info/options")?,
            ping: body("/ping")?,
            login: body("/admin/login")?,
            stats: body("/stats")?,
            member,
        })
    }
}

/// The recorded exchanges with a version's node.
fn exchanges(version: Version) -> Result<Vec<Value>> {
    let path = fixtures().join("http").join(format!("{version}.json"));
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut file: Value = serde_json::from_str(&text)?;
    match file["exchanges"].take() {
        Value::Array(exchanges) => Ok(exchanges),
        _ => anyhow::bail!("{} holds no exchanges", path.display()),
    }
}

fn answer(exchanges: &[Value], path: &str) -> Result<Value> {
    let found = exchanges
        .iter()
        .rfind(|exchange| exchange["request"]["path"] == path && exchange["status"] == 200);
    let body = found
        .and_then(|exchange| exchange["body"].as_str())
        .with_context(|| format!("no answer for {path} was recorded"))?;
    Ok(serde_json::from_str(body)?)
}
