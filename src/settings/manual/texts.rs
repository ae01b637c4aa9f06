//! The texts of the manual pages that no option declares.

/// Exit codes and their meaning, word for word as in the table of the guide.
pub(super) const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "done"),
    ("3", "done, with warnings; the backup is usable"),
    (
        "1",
        "failed, for example by a full disk or an unexpected answer",
    ),
    (
        "2",
        "the command line, the environment or the configuration is wrong",
    ),
    ("10", "there is no repository, or no such backup"),
    (
        "11",
        "another run holds the repository, or works on the node",
    ),
    ("12", "wrong credentials, or permission denied"),
    ("13", "the node or the object store cannot be reached"),
    (
        "20",
        "stored data is damaged (check: a server would not start, or would lose something)",
    ),
    ("21", "the node's files are corrupt"),
    (
        "22",
        "the node kept changing or is not fit, a scavenge runs that --scavenge spares, or the node \
         was without scavenging for --max-pause",
    ),
    ("23", "refused for safety"),
    (
        "130, 143",
        "interrupted (SIGINT; SIGTERM, or the end of --window); clean",
    ),
];

/// Files that every verb may read.
pub(super) const FILES: &[(&str, &str)] = &[
    (
        "/etc/kbackup/kbackup.toml",
        "the configuration of the units in the Debian package; --config names any other file",
    ),
    (
        "/var/lib/kbackup",
        "release records, which say what has to be given back to nodes, if kbackup runs as root; \
         else ~/.local/state/kbackup",
    ),
];

/// Variables for secrets. They have no flag.
pub(super) const SECRETS: &[(&str, &str)] = &[
    (
        "KBACKUP_PASSWORD",
        "the password of --user; wins over a file that the configuration file names",
    ),
    (
        "KBACKUP_TOKEN",
        "a bearer token; wins over a file that the configuration file names",
    ),
    (
        "KBACKUP_LISTEN_PASSWORD",
        "the password of --listen-user; wins over a file that the configuration file names",
    ),
    (
        "KBACKUP_AGENT_PASSWORD",
        "the password of --agent-user; wins over a file that the configuration file names",
    ),
];

pub(super) const CONFIGURATION: &str = "Every option is a flag, a variable, and a key of the TOML \
    file that --config names. A flag wins over the environment, the environment over the file. To \
    give several values, repeat the flag, put commas into the variable, or write an array into the \
    file. Keys above the first table are for every verb; a table such as [restore] holds the \
    options of one verb. Unknown keys are refused.";

/// An example of the use of a verb.
pub(super) struct Example {
    pub verb: &'static str,
    pub purpose: &'static str,
    pub line: &'static str,
}

pub(super) const EXAMPLES: &[Example] = &[
    Example {
        verb: "init",
        purpose: "Make the repository of a node:",
        line: "kbackup init --repo /backup/node1",
    },
    Example {
        verb: "full",
        purpose: "Take the first backup of a node without TLS:",
        line: "kbackup full --repo /backup/node1 --node http://127.0.0.1:2113",
    },
    Example {
        verb: "full",
        purpose: "Back up a snapshot of a volume, without asking a node:",
        line: "kbackup full --repo /backup/node1 --offline --db /mnt/snapshot/db \
               --server-version 26.1.0",
    },
    Example {
        verb: "diff",
        purpose: "Back up what changed since the newest backup, from a node with TLS:",
        line: "kbackup diff --repo /backup/node1 --node https://node1.example:2113 \
               --ca-file ca.crt --user ops --password-file password",
    },
    Example {
        verb: "diff",
        purpose: "Do the same with all options in a file:",
        line: "kbackup diff --config /etc/kbackup/kbackup.toml",
    },
    Example {
        verb: "restore",
        purpose: "Show what the newest backup would restore:",
        line: "kbackup restore --repo /backup/node1 --to /var/lib/kurrentdb --dry-run",
    },
    Example {
        verb: "restore",
        purpose: "Restore an earlier backup for two members, ready at their first start:",
        line: "kbackup restore 20261121T030000Z-diff --repo /backup/node1 --to /mnt/node1/db \
               --to /mnt/node2/db --ready",
    },
    Example {
        verb: "verify",
        purpose: "Prove every backup:",
        line: "kbackup verify --repo /backup/node1 --all",
    },
    Example {
        verb: "verify",
        purpose: "Repair every damaged file of which the repository has another copy:",
        line: "kbackup verify --repo /backup/node1 --all --repair",
    },
    Example {
        verb: "check",
        purpose: "Ask whether this server would start from that directory:",
        line: "kbackup check /var/lib/kurrentdb --server-version 26.1.0",
    },
    Example {
        verb: "copy",
        purpose: "Copy the newest backup into a repository on another machine's disk:",
        line: "kbackup copy --from /backup/node1 --to /mnt/second/node1",
    },
    Example {
        verb: "copy",
        purpose: "Show what it would cost to copy all backups that the second place lacks:",
        line: "kbackup copy --from /backup/node1 --to /mnt/second/node1 --all --dry-run",
    },
    Example {
        verb: "export",
        purpose: "Write the newest backup into one compressed file:",
        line: "kbackup export --repo /backup/node1 --zstd > node1.tar.zst",
    },
    Example {
        verb: "import",
        purpose: "Read that file into another repository:",
        line: "kbackup import --repo /mnt/second/node1 < node1.tar.zst",
    },
    Example {
        verb: "expire",
        purpose: "Show which backups would be removed, which would stay, and why:",
        line: "kbackup expire --repo /backup/node1 --keep-last 24 --keep-daily 7 --keep-weekly 4 \
               --dry-run",
    },
    Example {
        verb: "prune",
        purpose: "Show what removed backups left in an object store, and what can be deleted now:",
        line: "kbackup prune --repo s3://bucket/node1 --dry-run",
    },
    Example {
        verb: "list",
        purpose: "List all backups:",
        line: "kbackup list --repo /backup/node1",
    },
    Example {
        verb: "show",
        purpose: "Show the newest backup, file by file:",
        line: "kbackup show latest --repo /backup/node1 --files",
    },
    Example {
        verb: "release",
        purpose: "Repair the node after a kill or a power cut, as ExecStopPost= of a unit:",
        line: "kbackup release --config /etc/kbackup/kbackup.toml",
    },
    Example {
        verb: "status",
        purpose: "Answer a monitoring system, without an agent:",
        line: "kbackup status --repo /backup/node1 --max-age 26h --monitoring-plugin",
    },
    Example {
        verb: "status",
        purpose: "Ask the agent beside the node:",
        line: "kbackup status --agent http://127.0.0.1:2114",
    },
    Example {
        verb: "agent",
        purpose: "Keep a node backed up, by a schedule and after changes:",
        line: "kbackup agent --config /etc/kbackup/kbackup.toml",
    },
    Example {
        verb: "agent",
        purpose: "Check the configuration:",
        line: "kbackup agent --config /etc/kbackup/kbackup.toml --check-config",
    },
    Example {
        verb: "completions",
        purpose: "Print the script for bash, for a file in /usr/share/bash-completion/completions:",
        line: "kbackup completions bash",
    },
    Example {
        verb: "manual",
        purpose: "Print the page of a verb; man -l - shows it:",
        line: "kbackup manual diff",
    },
    Example {
        verb: "manual",
        purpose: "Write all pages:",
        line: "kbackup manual --into /usr/local/share/man/man1",
    },
];
