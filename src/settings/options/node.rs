//! How to reach a node, and where its files are.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::clock::Span;
use crate::settings::SecretSource;
use crate::settings::origin::Origins;

const NODE: &str = "Node";
const SOURCE: &str = "Source";

#[derive(Debug, Args)]
pub(super) struct NodeArguments {
    /// Address of the node, such as `https://node1.example:2113`
    #[arg(long, env = "KBACKUP_NODE", value_name = "URL", help_heading = NODE)]
    node: Option<RedactedUrl>,
    /// Reach the node through this Unix socket (kurrent.sock or eventstore.sock)
    #[arg(long, env = "KBACKUP_NODE_SOCKET", value_name = "PATH", help_heading = NODE)]
    node_socket: Option<PathBuf>,
    /// Trust only the certificate authorities in this PEM file; may be repeated
    #[arg(
        long,
        env = "KBACKUP_CA_FILE",
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = NODE
    )]
    ca_file: Vec<PathBuf>,
    /// Identify kbackup by the client certificate in this PEM file
    #[arg(long, env = "KBACKUP_CERTIFICATE_FILE", value_name = "FILE", help_heading = NODE)]
    certificate_file: Option<PathBuf>,
    /// PEM file with the private key of the client certificate
    #[arg(long, env = "KBACKUP_KEY_FILE", value_name = "FILE", help_heading = NODE)]
    key_file: Option<PathBuf>,
    /// Name of a user in $ops or $admins; the password comes from --password-file or
    /// KBACKUP_PASSWORD
    #[arg(long, env = "KBACKUP_USER", value_name = "NAME", help_heading = NODE)]
    user: Option<String>,
    /// File whose first line is the password of the user
    #[arg(long, env = "KBACKUP_PASSWORD_FILE", value_name = "FILE", help_heading = NODE)]
    password_file: Option<PathBuf>,
    /// File whose first line is a bearer token; KBACKUP_TOKEN can hold the token instead
    #[arg(
        long,
        env = "KBACKUP_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "user",
        help_heading = NODE
    )]
    token_file: Option<PathBuf>,
    /// Expect this name in the certificate of the node [default: the name in the address]
    #[arg(long, env = "KBACKUP_NODE_SERVER_NAME", value_name = "NAME", help_heading = NODE)]
    node_server_name: Option<String>,
    /// Wait at most this long for a single answer of the node
    #[arg(
        long,
        env = "KBACKUP_NODE_TIMEOUT",
        value_name = "TIME",
        default_value = "15s",
        help_heading = NODE
    )]
    node_timeout: Span,
    /// Repeat a request for this long if the node cannot be reached or answers with errors
    #[arg(
        long,
        env = "KBACKUP_NODE_PATIENCE",
        value_name = "TIME",
        default_value = "30s",
        help_heading = NODE
    )]
    node_patience: Span,
}

/// How to reach the admin API of a node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// `--node`.
    pub url: Option<RedactedUrl>,
    /// `--node-socket`.
    pub socket: Option<PathBuf>,
    /// `--ca-file`: the only certificate authorities to trust; those of the machine if empty.
    pub ca_files: Vec<PathBuf>,
    /// `--certificate-file`.
    pub certificate_file: Option<PathBuf>,
    /// `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `--user`.
    pub user: Option<String>,
    /// `--password-file` or `KBACKUP_PASSWORD`.
    pub password: SecretSource,
    /// `--token-file` or `KBACKUP_TOKEN`.
    pub token: SecretSource,
    /// `--node-server-name`.
    pub server_name: Option<String>,
    /// `--node-timeout`: the longest wait for a single answer.
    pub answer_timeout: Duration,
    /// `--node-patience`: how long a request is repeated.
    pub patience: Duration,
}

impl NodeArguments {
    pub(super) fn into_options(self, origins: Origins<'_>) -> NodeOptions {
        NodeOptions {
            url: self.node,
            socket: self.node_socket,
            ca_files: self.ca_file,
            certificate_file: self.certificate_file,
            key_file: self.key_file,
            user: self.user,
            password: SecretSource::new(
                self.password_file,
                origins.of("password_file"),
                "KBACKUP_PASSWORD",
            ),
            token: SecretSource::new(self.token_file, origins.of("token_file"), "KBACKUP_TOKEN"),
            server_name: self.node_server_name,
            answer_timeout: self.node_timeout.0,
            patience: self.node_patience.0,
        }
    }
}

/// A URL as the user wrote it. It may hold a password, so `Debug` shows only what follows after it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedUrl(pub String);

impl FromStr for RedactedUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.rsplit_once('@') {
            Some((_, host)) => f.write_str(host),
            None => f.write_str(&self.0),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct SourceDirectoriesArguments {
    /// The node's db directory, by its path on this machine [default: the path that the node
    /// reports]
    #[arg(long, env = "KBACKUP_DB", value_name = "DIR", help_heading = SOURCE)]
    db: Option<PathBuf>,
    /// The node's index directory, by its path on this machine [default: the path that the node
    /// reports, or DB/index]
    #[arg(long, env = "KBACKUP_INDEX", value_name = "DIR", help_heading = SOURCE)]
    index: Option<PathBuf>,
}

/// The directories of a node, as far as the user named them.
#[derive(Debug, Clone)]
pub struct SourceDirectories {
    /// `--db`.
    pub db: Option<PathBuf>,
    /// `--index`.
    pub index: Option<PathBuf>,
}

impl From<SourceDirectoriesArguments> for SourceDirectories {
    fn from(arguments: SourceDirectoriesArguments) -> Self {
        Self {
            db: arguments.db,
            index: arguments.index,
        }
    }
}
