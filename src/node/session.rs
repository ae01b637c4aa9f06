//! One run's conversation with one server process: every reply must come from it.

use uuid::Uuid;

use super::{Client, Gossip, NodeInfo, NodeOptions, NodeState, Patience};
use crate::error::{Error, Kind, Result};
use crate::run::Run;
use crate::server::{ServerVersion, facts};

/// A load balancer that takes turns shows itself within this many questions.
const QUESTIONS: usize = 3;

/// A node, pinned to the server process that answered first.
#[derive(Debug)]
pub struct Session {
    client: Client,
    version: ServerVersion,
    options: NodeOptions,
    insecure: bool,
    gossips: bool,
    here: Whereabouts,
}

/// Which server process answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Its random id, new at each start; none where the node does not gossip.
    pub instance: Option<Uuid>,
    /// Its advertised `host:port`; none where the node does not gossip.
    pub endpoint: Option<String>,
    /// When it started, as the server writes it; none where the node tells no statistics.
    pub started: Option<String>,
}

impl Session {
    /// Asks who is there, checks the credentials, and remembers the server process.
    ///
    /// A single node of 20.10 does not gossip unless `GossipOnSingleNode` is set; it is known by
    /// its start time.
    ///
    /// # Errors
    /// [`Kind::Unreachable`], [`Kind::Denied`]; [`Kind::Refused`] where different nodes answer.
    pub fn open(client: Client, run: &Run) -> Result<Self> {
        let patience = Patience::of(run);
        let info = client.info(patience)?;
        let version = info.version().ok_or_else(|| {
            Error::new(Kind::Failed, "the node tells no version")
                .on(client.place())
                .hint("is it a KurrentDB or EventStoreDB node?")
        })?;
        if !info.is_insecure() {
            client.check_login(patience)?;
        }
        let options = client.options(patience)?;
        let alone = options.cluster_size().is_none_or(|size| size <= 1);
        let gossips =
            version.has(facts::GOSSIPS_ALONE) || !alone || options.is_on("GossipOnSingleNode");
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
        session.here = session.look(patience)?.0;
        if session.here.instance.is_none() && session.here.started.is_none() {
            run.warn(format!(
                "{}: the node tells neither its gossip nor its statistics: a restart of it, or a load balancer in between, cannot be noticed",
                session.client.place()
            ));
        }
        for _ in 1..QUESTIONS {
            session.check(patience)?;
        }
        Ok(session)
    }

    /// The calls themselves.
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
    pub const fn options(&self) -> &NodeOptions {
        &self.options
    }

    /// The server process that answered first.
    #[must_use]
    pub const fn whereabouts(&self) -> &Whereabouts {
        &self.here
    }

    /// The node believes everybody (http-api §0.3).
    #[must_use]
    pub const fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// The state that the node claims now.
    ///
    /// # Errors
    /// As [`Client::info`].
    pub fn state(&self, patience: Patience<'_>) -> Result<NodeState> {
        self.client.info(patience).map(|info: NodeInfo| info.state)
    }

    /// The node's gossip, from the same server process; none where it does not gossip.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn gossip(&self, patience: Patience<'_>) -> Result<Option<Gossip>> {
        let gossip = self.ask_gossip(patience)?;
        if let Some(gossip) = &gossip {
            self.same(&self.here_by(Some(gossip)))?;
        }
        Ok(gossip)
    }

    /// Whether the same server process still answers.
    ///
    /// # Errors
    /// [`Kind::Unstable`] where it was restarted, [`Kind::Refused`] where another node answers, and
    /// as [`Client::gossip`].
    pub fn check(&self, patience: Patience<'_>) -> Result<()> {
        let (now, _) = self.look(patience)?;
        self.same(&now)
    }

    fn ask_gossip(&self, patience: Patience<'_>) -> Result<Option<Gossip>> {
        if !self.gossips {
            return Ok(None);
        }
        let gossip = self.client.gossip(patience)?;
        if gossip.as_ref().is_some_and(|gossip| gossip.me().is_none()) {
            return Err(Error::new(
                Kind::Unstable,
                "the node does not find itself in its own gossip",
            )
            .on(self.client.place()));
        }
        Ok(gossip)
    }

    fn here_by(&self, gossip: Option<&Gossip>) -> Whereabouts {
        Whereabouts {
            instance: gossip.and_then(Gossip::me).map(|me| me.instance_id),
            endpoint: gossip.map(Gossip::endpoint),
            started: self.here.started.clone(),
        }
    }

    fn look(&self, patience: Patience<'_>) -> Result<(Whereabouts, Option<Gossip>)> {
        let gossip = self.ask_gossip(patience)?;
        let started = self
            .client
            .process(patience)?
            .map(|process| process.start_time);
        Ok((
            Whereabouts {
                started,
                ..self.here_by(gossip.as_ref())
            },
            gossip,
        ))
    }

    fn same(&self, now: &Whereabouts) -> Result<()> {
        if *now == self.here {
            return Ok(());
        }
        let place = self.client.place();
        if now.endpoint != self.here.endpoint {
            let name = |endpoint: &Option<String>| {
                endpoint
                    .clone()
                    .unwrap_or_else(|| "a node that does not gossip".to_owned())
            };
            return Err(Error::new(
                Kind::Refused,
                format!("different nodes answer: first {}, now {}", name(&self.here.endpoint), name(&now.endpoint)),
            )
            .on(place)
            .hint("is this the address of a load balancer or of the whole cluster? Give the address of the one node whose files are backed up"));
        }
        Err(Error::new(Kind::Unstable, "the node was restarted meanwhile, or different nodes answer under one advertised address")
            .on(place)
            .hint("if the node was not restarted, this is the address of a load balancer: give the node's own"))
    }
}
