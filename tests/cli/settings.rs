//! The order of flag, environment and file, mistakes in the file, and secrets.

use kbackup_testnode::Credentials;

use super::{NodeSite, Place, snapshots, transcript};

/// The value and the origin of an option, from the output of `--log debug`.
fn setting(command: &mut assert_cmd::Command, option: &str) -> String {
    let stderr =
        String::from_utf8(command.args(["--log", "debug"]).output().unwrap().stderr).unwrap();
    let start = format!("setting {option} = ");
    let found = stderr.lines().find_map(|line| line.split_once(&start));
    found.map(|(_, value)| value.to_owned()).unwrap_or(stderr)
}

#[test]
fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
    let place = Place::new();
    let file = place.write(
        "kbackup.toml",
        "attempts = 2\nwait = '7s'\n[full]\nattempts = 3\n",
    );
    place.write("empty.toml", "");

    let verb = |verb: &str| {
        let mut command = place.kbackup(&format!("{verb} --repo repo --offline --db missing"));
        command.env("KBACKUP_CONFIG", &file);
        command
    };

    assert_eq!(setting(&mut verb("full"), "attempts"), "3 (file)");
    assert_eq!(setting(&mut verb("diff"), "attempts"), "2 (file)");
    assert_eq!(
        setting(verb("full").env("KBACKUP_ATTEMPTS", "4"), "attempts"),
        "4 (environment)"
    );
    assert_eq!(
        setting(
            verb("full")
                .env("KBACKUP_ATTEMPTS", "4")
                .args(["--attempts", "5"]),
            "attempts"
        ),
        "5 (flag)"
    );
    assert_eq!(
        setting(verb("full").env("KBACKUP_ATTEMPTS", ""), "attempts"),
        "3 (file)"
    );

    assert_eq!(setting(&mut verb("full"), "wait"), "7s (file)");
    assert_eq!(setting(&mut verb("full"), "quiesce_wait"), "5m (default)");
    assert_eq!(
        setting(verb("full").args(["--config", "empty.toml"]), "attempts"),
        "10 (default)"
    );
}

#[test]
fn an_agent_that_expires_needs_a_rule() {
    let place = Place::new();
    let line =
        "agent --check-config --node http://127.0.0.1:1 --repo repo --expire-schedule @daily";

    let output = place.kbackup(line).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && stderr.contains("no rule says what to keep"),
        "{stderr}"
    );

    let config = place.write("rule.toml", "[expire]\nkeep-last = 3\n");
    let mut with_rule = place.kbackup(line);
    with_rule.env("KBACKUP_CONFIG", &config).assert().code(0);
}

#[test]
fn every_option_is_a_variable_and_a_key() {
    for verb in kbackup::settings::command().get_subcommands() {
        for argument in verb
            .get_arguments()
            .filter(|argument| argument.get_long().is_some())
        {
            let long = argument.get_long().unwrap();
            let variable = format!("KBACKUP_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(
                argument.get_env().and_then(|name| name.to_str()),
                Some(variable.as_str()),
                "{} --{long}",
                verb.get_name()
            );
            assert_eq!(argument.get_id().as_str(), long.replace('-', "_"));
        }
    }
}

#[test]
fn lists_and_switches_may_come_from_the_file_and_the_environment() {
    let place = Place::new();
    place.write("lists.toml", "repo = 'repo'\njson = true\nto = ['one', 'two']\n[restore]\nindex-to = ['three', 'four']\nready = true\n");

    let mut command = place.kbackup("restore --config lists.toml");
    assert_eq!(setting(&mut command, "to"), "one,two (file)");
    let mut command = place.kbackup("restore --config lists.toml");
    assert_eq!(setting(&mut command, "ready"), "true (file)");
    let mut command = place.kbackup("restore --config lists.toml");
    assert_eq!(
        setting(command.env("KBACKUP_TO", "five,six,seven"), "to"),
        "five,six,seven (environment)"
    );

    for (value, json) in [
        ("1", true),
        ("yes", true),
        ("true", true),
        ("0", false),
        ("false", false),
        ("", false),
    ] {
        let mut command = place.kbackup("list --repo missing");
        let output = command.env("KBACKUP_JSON", value).output().unwrap();
        assert_eq!(
            (output.status.code(), !output.stdout.is_empty()),
            (Some(10), json),
            "{value}"
        );
    }
}

#[test]
fn mistakes_in_the_file_are_reported() {
    let place = Place::new();
    let mut said = Vec::new();

    for (name, text) in [
        ("unknown-key", "repo = 'repo'\nspeed = 'high'\n"),
        ("unknown-key-in-table", "[list]\nready = true\n"),
        ("unknown-table", "[backup]\nrepo = 'repo'\n"),
        ("wrong-number", "attempts = 0\n"),
        ("wrong-word", "log = 'loud'\n"),
        ("wrong-time", "[diff]\nfilter-max-age = 'soon'\n"),
        ("wrong-switch", "offline = 'perhaps'\n"),
        ("wrong-type", "attempts = 1.5\n"),
        ("list-for-one", "repo = ['a', 'b']\n"),
        ("no-toml", "repo = 'repo'\npassword = \"hunter2\n"),
        ("password", "password = 'hunter2'\n"),
        ("positional", "label = 'latest'\n"),
        ("nested", "config = 'other.toml'\n"),
        (
            "exclusive",
            "repo = 'repo'\n[verify]\nquick = true\ndeep = true\n",
        ),
        (
            "good",
            "repo = 'missing'\nattempts = 2\n[verify]\nquick = true\n",
        ),
    ] {
        place.write(&format!("{name}.toml"), text);
        said.push((
            name,
            place.transcript(&format!("verify --repo missing --config {name}.toml")),
        ));
    }

    super::stable(&place, || {
        for (name, text) in said {
            assert!(!text.contains("hunter2"), "{text}");
            insta::assert_snapshot!(format!("config-{name}"), text);
        }
    });

    snapshots!(place,
        "config-missing": place.transcript("list --repo missing --config missing.toml"),
        "config-missing-json": place.transcript("list --repo missing --config missing.toml --json"),
    );

    let line = "list --repo missing";
    snapshots!(place, "config-missing-environment": transcript(line, place.kbackup(line).env("KBACKUP_CONFIG", "missing.toml")),);
}

#[test]
fn the_stronger_of_two_exclusive_options_wins() {
    let place = Place::new();
    place.write(
        "online.toml",
        "node = 'http://127.0.0.1:1'\nrepo = 'repo'\n",
    );
    place.write("quick.toml", "quick = true\nrepo = 'repo'\n");

    // The flag wins, so kbackup tries an offline backup.
    let offline = place.transcript("full --config online.toml --offline --db missing");
    assert!(offline.contains("there is no db directory"), "{offline}");

    let line = "full --repo repo --offline --db missing";
    let environment = transcript(
        line,
        place
            .kbackup(line)
            .env("KBACKUP_NODE", "http://127.0.0.1:1"),
    );
    assert!(
        environment.contains("there is no db directory"),
        "{environment}"
    );

    let environment = transcript(
        line,
        place
            .kbackup("full --repo repo --db missing --config online.toml")
            .env("KBACKUP_OFFLINE", "true"),
    );
    assert!(
        environment.contains("there is no db directory"),
        "{environment}"
    );

    assert_eq!(
        setting(
            &mut place.kbackup("verify --config quick.toml --deep"),
            "quick"
        ),
        "false (default)"
    );
    assert_eq!(
        setting(&mut place.kbackup("verify --config quick.toml"), "quick"),
        "true (file)"
    );

    // A label on the command line is stronger than `all` in the file.
    place.write("all.toml", "all = true\nrepo = 'repo'\n");
    assert_eq!(
        setting(
            &mut place.kbackup("verify 20200101T000000Z-full --config all.toml"),
            "all"
        ),
        "false (default)"
    );

    let line = "verify --repo repo";
    let both = transcript(
        line,
        place
            .kbackup(line)
            .env("KBACKUP_QUICK", "1")
            .env("KBACKUP_DEEP", "1"),
    );

    assert!(
        both.starts_with("$ kbackup verify --repo repo\nexit: 2\n"),
        "{both}"
    );
    assert!(
        both.contains("`KBACKUP_QUICK` and `KBACKUP_DEEP` exclude each other"),
        "{both}"
    );
}

#[test]
fn options_that_need_each_other_are_demanded() {
    let place = Place::new();
    place.write("password", "correct\n");
    place.write("empty", "\n");
    place.write(
        "certificate.toml",
        "repo = 'repo'\nnode = 'https://127.0.0.1:1'\ncertificate-file = 'node.crt'\n",
    );
    place.write(
        "user.toml",
        "repo = 'repo'\nnode = 'https://127.0.0.1:1'\nuser = 'ops'\n",
    );
    place.write(
        "password.toml",
        "repo = 'repo'\nnode = 'https://127.0.0.1:1'\npassword-file = 'password'\n",
    );

    snapshots!(place,
        "needs-key": place.transcript("full --config certificate.toml"),
        "needs-password": place.transcript("full --config user.toml"),
        "needs-user": place.transcript("full --config password.toml"),
        "needs-content": place.transcript("full --config user.toml --password-file empty"),
        "needs-file": place.transcript("full --config user.toml --password-file missing"),
    );
}

#[test]
fn no_secret_is_shown() {
    let site = NodeSite::new("26.1-append");
    site.node.change_quirks(|quirks| {
        quirks.credentials = Some(Credentials::operator("ops", "correct-hunter2"));
    });
    let place = &site.place;
    place.write("wrong", "wrong-hunter2\n");
    place.write("file.toml", "user = 'ops'\npassword-file = 'wrong'\n");

    let full = site.line("full --repo repo --node URL --log debug");
    let good = transcript(
        &full,
        place
            .kbackup(&full)
            .env("KBACKUP_USER", "ops")
            .env("KBACKUP_PASSWORD", "correct-hunter2"),
    );
    assert!(good.contains("\nexit: 0\n"), "{good}");

    // The environment is stronger than the file, and a flag is stronger than the environment.
    let line = format!("{full} --config file.toml");
    let file = transcript(&line, &mut place.kbackup(&line));
    assert!(file.contains("\nexit: 12\n"), "{file}");
    let environment = transcript(
        &line,
        place
            .kbackup(&line)
            .env("KBACKUP_PASSWORD", "correct-hunter2"),
    );
    assert!(environment.contains("\nexit: 0\n"), "{environment}");
    let flag = transcript(
        &line,
        place
            .kbackup(&format!("{line} --password-file wrong"))
            .env("KBACKUP_PASSWORD", "correct-hunter2"),
    );
    assert!(flag.contains("\nexit: 12\n"), "{flag}");

    let address = site.server.url().replace("http://", "");
    let mut said = vec![good, file, environment, flag];

    for line in [
        format!("full --repo repo --log debug --node http://ops:correct-hunter2@{address}"),
        format!("full --repo repo --log debug --node ops:correct-hunter2@{address}"),
        format!(
            "full --repo repo --log debug --node http://ops:correct-hunter2@{address} --offline"
        ),
        format!(
            "full --repo repo --log debug --json --node http://{address} --password correct-hunter2"
        ),
        format!("full --repo repo --log debug --node http://{address} --password=correct-hunter2"),
        format!("full --repo repo --log debug --node http://{address} --token=correct-hunter2"),
        format!("release --log debug --node http://ops:correct-hunter2@{address}"),
    ] {
        // The transcript begins with the line itself, so the line is left out.
        let text = transcript("", &mut place.kbackup(&line));
        assert!(text.contains("\nexit: 2\n"), "{line}: {text}");

        said.push(text);
    }

    for text in &said {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let files = walkdir::WalkDir::new(place.path("repo"))
        .into_iter()
        .chain(walkdir::WalkDir::new(place.path("state")));
    for entry in files.flatten() {
        if entry.file_type().is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(
                !bytes.windows(7).any(|window| window == b"hunter2"),
                "{}",
                entry.path().display()
            );
        }
    }
}
