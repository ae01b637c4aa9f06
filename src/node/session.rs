//! One run's conversation with one server process. Every reply must come from that process: a load
//! balancer could send a scavenge call to another node.

use uuid::Uuid;

use super::http_reply::lacks;
use super::{Client, Gossip, NodeInfo, NodeState, Patience, ServerOptions};
use crate::error::{Error, Kind, Result};
use crate::run::Run;
use crate::server::{ServerVersion, facts};

/// A load balancer that sends requests to the nodes in turn is noticed within this many requests.
const QUESTIONS: usize = 3;

/// A node, pinned to the server process that answered first.
#[derive(Debug)]
pub struct Session {
    client: Client,
    version: ServerVersion,
    options: ServerOptions,
    insecure: bool,
    gossips: bool,
    here: Whereabouts,
}

/// What identifies a server process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Its random id, new at each start; `None` if the node does not gossip.
    pub instance: Option<Uuid>,
    /// Its advertised `host:port`; `None` if the node does not gossip.
    pub endpoint: Option<String>,
    /// When it started, as the server writes it; `None` if the node reports no statistics.
    pub started: Option<String>,
}

impl Session {
    /// Asks which server process answers, checks the credentials, and remembers the process.
    ///
    /// A single node of 20.10 does not gossip unless `GossipOnSingleNode` is set. kbackup
    /// recognises it by its start time.
    ///
    /// # Errors
    /// [`Kind::Unreachable`], [`Kind::Denied`]; [`Kind::Refused`] if different nodes answer.
    pub fn open(client: Client, run: &Run) -> Result<Self> {
        let patience = Patience::of(run);
        let info = client.info(patience)?;
        let Some(version) = info.version() else {
            return Err(Error::new(
                Kind::Failed,
                "the node reports no version: `dbVersion` and `esVersion` of `/info` hold none",
            )
            .on(client.place())
            .hint("check that this is the URL of a KurrentDB or EventStoreDB node"));
        };

        if !info.is_insecure() {
            client.check_login(patience)?;
        }
        let options = client.options(patience)?;
        let gossips = does_gossip(&version, &options);

        let mut session = Self {
            client,
            version,
            options,
            insecure: info.is_insecure(),
            gossips,
            here: Whereabouts {
                instance: None,
                endpoint: None,
                started: None,
            },
        };
        session.here = session.look(patience)?;
        session.warn_if_unknown(run);

        for _ in 1..QUESTIONS {
            session.check(patience)?;
        }
        Ok(session)
    }

    fn warn_if_unknown(&self, run: &Run) {
        if self.here.instance.is_some() || self.here.started.is_some() {
            return;
        }

        run.warn(format!(
            "{}: the node reports neither gossip nor statistics, \
             so kbackup cannot notice a restart of the node or a load balancer in between",
            self.client.place()
        ));
    }

    /// The client, for calls whose answer may come from any server process.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The server's version.
    #[must_use]
    pub const fn version(&self) -> &ServerVersion {
        &self.version
    }

    /// The node's configuration.
    #[must_use]
    pub const fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// The server process that answered first.
    #[must_use]
    pub const fn whereabouts(&self) -> &Whereabouts {
        &self.here
    }

    /// The node asks for no password (http-api §0.3).
    #[must_use]
    pub const fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// The state that the node reports now.
    ///
    /// # Errors
    /// As [`Client::info`], also if the node does not tell it.
    pub fn state(&self, patience: Patience<'_>) -> Result<NodeState> {
        let info: NodeInfo = self.client.info(patience)?;
        let Some(state) = info.state else {
            return Err(lacks(&format!("{}/info", self.client.place()), "state"));
        };
        Ok(state)
    }

    /// The node's gossip, from the same server process. Returns `None` if it does not gossip.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn gossip(&self, patience: Patience<'_>) -> Result<Option<Gossip>> {
        let gossip = self.ask_gossip(patience)?;
        if gossip.is_some() {
            let started = self.here.started.clone();
            self.check_same(&whereabouts(gossip.as_ref(), started))?;
        }
        Ok(gossip)
    }

    /// Checks that the same server process still answers.
    ///
    /// # Errors
    /// [`Kind::Unstable`] if it was restarted, [`Kind::Refused`] if another node answers, and as
    /// [`Client::gossip`].
    pub fn check(&self, patience: Patience<'_>) -> Result<()> {
        let now = self.look(patience)?;
        self.check_same(&now)
    }

    fn ask_gossip(&self, patience: Patience<'_>) -> Result<Option<Gossip>> {
        if !self.gossips {
            return Ok(None);
        }

        let gossip = self.client.gossip(patience)?;
        if let Some(gossip) = &gossip
            && gossip.me().is_none()
        {
            return Err(Error::new(
                Kind::Unstable,
                "the node does not find itself in its own gossip",
            )
            .on(self.client.place()));
        }
        Ok(gossip)
    }

    /// The server process that answers now.
    fn look(&self, patience: Patience<'_>) -> Result<Whereabouts> {
        let gossip = self.ask_gossip(patience)?;
        let process = self.client.process(patience)?;
        let started = process.and_then(|process| process.start_time);
        Ok(whereabouts(gossip.as_ref(), started))
    }

    fn check_same(&self, now: &Whereabouts) -> Result<()> {
        if *now == self.here {
            return Ok(());
        }

        let place = self.client.place();
        if now.endpoint != self.here.endpoint {
            let (first, now) = (endpoint_name(&self.here), endpoint_name(now));
            return Err(Error::new(
                Kind::Refused,
                format!("different nodes answer: first {first}, now {now}"),
            )
            .on(place)
            .hint(
                "give the address of the one node whose files are backed up, \
                 not that of a load balancer or of the whole cluster",
            ));
        }

        Err(Error::new(
            Kind::Unstable,
            "the node was restarted during the run, \
             or different nodes answer under one advertised address",
        )
        .on(place)
        .hint(
            "if the node was not restarted, this is the address of a load balancer: \
             give the node's own address",
        ))
    }
}

/// Older servers gossip only if they belong to a cluster, or are told to.
fn does_gossip(version: &ServerVersion, options: &ServerOptions) -> bool {
    let is_alone = match options.cluster_size() {
        Some(size) => size <= 1,
        None => true,
    };

    version.has(facts::GOSSIPS_ALONE) || !is_alone || options.is_on("GossipOnSingleNode")
}

fn whereabouts(gossip: Option<&Gossip>, started: Option<String>) -> Whereabouts {
    let me = gossip.and_then(Gossip::me);
    Whereabouts {
        instance: me.and_then(|me| me.instance_id),
        endpoint: gossip.map(Gossip::endpoint),
        started,
    }
}

fn endpoint_name(whereabouts: &Whereabouts) -> &str {
    match &whereabouts.endpoint {
        Some(endpoint) => endpoint,
        None => "a node that does not gossip",
    }
}
