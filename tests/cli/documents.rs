//! The parts of kbackup that other programs read: the completions of a shell, and the pages of `man`.

use super::Place;

/// The words that bash offers for the last word of a line.
fn offered(place: &Place, line: &str) -> Vec<String> {
    let script = place.kbackup("completions bash").output().unwrap().stdout;
    std::fs::write(place.path("completions"), script).unwrap();
    let ask = r#"source completions; COMP_WORDS=($LINE); [[ $LINE != *' ' ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
        "$(complete -p kbackup | sed 's/.*-F \([^ ]*\).*/\1/')" kbackup "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;

    let bash = std::process::Command::new("bash")
        .args(["-uc", ask])
        .env("LINE", line)
        .current_dir(place.path(""))
        .output()
        .unwrap();

    assert!(
        bash.status.success(),
        "{}",
        String::from_utf8_lossy(&bash.stderr)
    );

    let offered = String::from_utf8(bash.stdout).unwrap();
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_options_and_values() {
    let place = Place::new();
    assert_eq!(offered(&place, "kbackup re"), ["restore", "release"]);
    assert_eq!(
        offered(&place, "kbackup restore --unless"),
        ["--unless-restored"]
    );
    assert_eq!(
        offered(&place, "kbackup diff --priority "),
        ["normal", "low", "idle"]
    );
    assert!(
        offered(&place, "kbackup nothing-like-this")
            .iter()
            .all(String::is_empty)
    );
}

#[test]
fn completions_are_made_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place
            .kbackup(&format!("completions {shell}"))
            .output()
            .unwrap();
        assert!(script.status.success(), "{shell}");
        let script = String::from_utf8(script.stdout).unwrap();
        assert!(
            script.contains("unless-restored") && !script.contains('\u{fffd}'),
            "{shell}"
        );
    }

    assert_eq!(
        place
            .kbackup("completions tcsh")
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn every_verb_has_a_manual_page() {
    let place = Place::new();
    let help = String::from_utf8(place.kbackup("--help").output().unwrap().stdout).unwrap();
    let (_, from_verbs) = help.split_once("Commands:\n").unwrap();
    let mut verbs = Vec::new();
    for line in from_verbs.lines().take_while(|line| !line.is_empty()) {
        // A longer indentation continues a description.
        if !line.starts_with("    ") {
            verbs.push(line.split_whitespace().next().unwrap());
        }
    }
    assert!(
        verbs.contains(&"diff") && verbs.contains(&"manual"),
        "{verbs:?}"
    );

    let written = place.kbackup("manual --into pages").output().unwrap();
    assert_eq!(
        String::from_utf8(written.stdout).unwrap().lines().count(),
        verbs.len() + 1
    );

    for verb in verbs {
        let page = std::fs::read_to_string(place.path(&format!("pages/kbackup-{verb}.1"))).unwrap();
        let printed = place.kbackup(&format!("manual {verb}")).output().unwrap();
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), page);

        for heading in [
            "NAME",
            "SYNOPSIS",
            "OPTIONS",
            "\"EXIT STATUS\"",
            "EXAMPLES",
            "\"SEE ALSO\"",
        ] {
            assert!(
                page.contains(&format!("\n.SH {heading}\n")),
                "{verb}: {heading}"
            );
        }
    }

    let unknown = place.kbackup("manual nothing").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
