//! Answers of the real node of each version, into which the living values are put.

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
        Ok(Self {
            info: body("/info")?,
            options: body("/info/options")?,
            ping: body("/ping")?,
            login: body("/admin/login")?,
            stats: body("/stats")?,
            // The 20.10 node never answered this (fixtures/http/20.10.json); its members looked as
            // those of 21.10.
            member: body("/gossip")
                .or_else(|_| answer(&self::exchanges(Version::new(21, 10))?, "/gossip"))?
                .pointer("/members/0")
                .context("a gossip without members")?
                .clone(),
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
    let body = exchanges
        .iter()
        .rfind(|exchange| exchange["request"]["path"] == path && exchange["status"] == 200)
        .and_then(|exchange| exchange["body"].as_str())
        .with_context(|| format!("no answer for {path} was recorded"))?;
    Ok(serde_json::from_str(body)?)
}
