//! `kbackup status`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::node::RedactedUrl;
use crate::clock::Span;
use crate::settings::{Origin, SecretSource};

#[derive(Debug, Args)]
pub(in crate::settings) struct StatusArguments {
    /// The repository, a directory or a URL; kbackup looks at it if no agent is named or the agent
    /// does not answer
    #[arg(
        long,
        env = "KBACKUP_REPO",
        value_name = "REPO",
        required_unless_present = "agent"
    )]
    repo: Option<PathBuf>,
    /// Address of the agent, such as `http://127.0.0.1:2114`
    #[arg(long, env = "KBACKUP_AGENT", value_name = "URL")]
    agent: Option<RedactedUrl>,
    /// User of the agent's page; the password comes from --agent-password-file or
    /// KBACKUP_AGENT_PASSWORD
    #[arg(long, env = "KBACKUP_AGENT_USER", value_name = "NAME")]
    agent_user: Option<String>,
    /// File whose first line is the password of the agent's page
    #[arg(long, env = "KBACKUP_AGENT_PASSWORD_FILE", value_name = "FILE")]
    agent_password_file: Option<PathBuf>,
    /// Trust only the certificate authorities in this PEM file for the agent's page; may be
    /// repeated
    #[arg(
        long,
        env = "KBACKUP_AGENT_CA_FILE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    agent_ca_file: Vec<PathBuf>,
    /// Longest time that data may be in no backup; an agent uses its own --max-age
    #[arg(
        long,
        env = "KBACKUP_MAX_AGE",
        value_name = "TIME",
        default_value = "26h"
    )]
    max_age: Span,
    /// Do not warn that the repository is on the node's own disk; an agent uses its own option
    #[arg(long, env = "KBACKUP_ACCEPT_SAME_DISK")]
    accept_same_disk: bool,
    /// Answer as a plugin of a monitoring system does: one line, and exit code 0 OK, 1 WARNING,
    /// 2 CRITICAL or 3 UNKNOWN
    #[arg(long, env = "KBACKUP_MONITORING_PLUGIN")]
    monitoring_plugin: bool,
}

/// The options of `kbackup status`.
#[derive(Debug, Clone)]
pub struct StatusOptions {
    /// `--repo`.
    pub repository: Option<PathBuf>,
    /// `--agent`.
    pub agent: Option<RedactedUrl>,
    /// `--agent-user`.
    pub agent_user: Option<String>,
    /// `--agent-password-file` or `KBACKUP_AGENT_PASSWORD`.
    pub agent_password: SecretSource,
    /// `--agent-ca-file`.
    pub agent_ca_files: Vec<PathBuf>,
    /// `--max-age`.
    pub max_age: Duration,
    /// `--accept-same-disk`.
    pub accept_same_disk: bool,
    /// `--monitoring-plugin`.
    pub monitoring_plugin: bool,
}

impl From<StatusArguments> for StatusOptions {
    fn from(arguments: StatusArguments) -> Self {
        // A file wins over the variable, also if only the configuration file names it.
        let agent_password = SecretSource::new(
            arguments.agent_password_file,
            Origin::Flag,
            "KBACKUP_AGENT_PASSWORD",
        );
        Self {
            repository: arguments.repo,
            agent: arguments.agent,
            agent_user: arguments.agent_user,
            agent_password,
            agent_ca_files: arguments.agent_ca_file,
            max_age: arguments.max_age.0,
            accept_same_disk: arguments.accept_same_disk,
            monitoring_plugin: arguments.monitoring_plugin,
        }
    }
}
