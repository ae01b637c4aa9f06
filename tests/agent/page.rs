//! The page: its text in each state, the text from outside in it, and its appearance in a real
//! browser.

pub(super) mod browser;
pub(crate) mod states;

use std::collections::BTreeMap;

use kbackup::agent::page::{PageView, STYLE, page};
use kbackup::agent::{Level, Status};

use self::browser::{Browser, Screen};
use self::states::State;

fn shown(status: &Status) -> String {
    let zone = "Europe/Berlin".parse().unwrap();
    page(
        status,
        PageView {
            zone: &zone,
            all: false,
            live: false,
            notice: None,
        },
    )
}

/// The text of the page, without the picture and without markup.
fn text(html: &str) -> String {
    let body = html.split_once("<body>").unwrap().1;
    let (mut text, mut is_drawing) = (String::new(), false);

    for part in body.split('<').skip(1) {
        let (tag, said) = part.split_once('>').unwrap();
        match tag.split([' ', '/']).next().unwrap() {
            "svg" => is_drawing = true,
            _ if tag == "/svg" => is_drawing = false,
            _ => {}
        }

        let ends_a_line = [
            "/p", "/h1", "/h2", "/h3", "/li", "/tr", "/dd", "/dt", "/td", "/th", "/summary",
            "/header", "/span",
        ];
        if !is_drawing {
            text.push_str(if tag == "/svg" { "" } else { said });
            if ends_a_line.contains(&tag) {
                text.push('\n');
            }
        }
    }

    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .collect::<Vec<_>>()
        .join("\n")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
}

/// Each of these says something of the backups that an operator has to know, although the newest
/// backup is young.
#[test]
fn the_page_says_that_somebody_else_has_paused_auto_scavenge() {
    const TOLD: &str = "auto-scavenge is paused, but not by kbackup";
    let mut status = State::safe().status();
    assert!(!text(&shown(&status)).contains(TOLD));

    let node = status.node.as_mut().unwrap();
    node.facts.as_mut().unwrap().auto_scavenge = Some("Paused".to_owned());
    assert!(text(&shown(&status)).contains(TOLD));

    // This pause is kbackup's own.
    status.agent.as_mut().unwrap().owed = Some("auto-scavenge".to_owned());
    assert!(!text(&shown(&status)).contains(TOLD));
}

#[test]
fn what_is_in_doubt_is_not_called_safe() {
    for (state, told) in [
        (State::on_the_nodes_disk(), "on the node's own disk"),
        (State::from_the_future(), "from the future"),
        (
            State::with_equal_numbers(),
            "carry the same sequence number",
        ),
        (State::with_a_foreign_manifest(), "a backup cannot be read"),
    ] {
        let status = state.status();
        assert_eq!(status.verdict.level, Level::Attention, "{told}");

        let mut concerns = status.verdict.concerns.iter();
        assert!(
            concerns.any(|concern| concern.what.contains(told)),
            "{told}"
        );
        let is_called_damaged =
            |concern: &kbackup::agent::Concern| concern.what.contains("is damaged");
        assert!(
            !status.verdict.concerns.iter().any(is_called_damaged),
            "{told}"
        );
    }
}

#[test]
fn the_page_of_each_state_reads_well() {
    for (name, state) in states::all() {
        if name != "thousands" {
            insta::assert_snapshot!(name, text(&shown(&state.status())));
        }
    }
}

/// While nobody can read the repository, nobody knows which backups of the history are gone.
#[test]
fn no_backup_is_drawn_as_removed_while_the_repository_cannot_be_read() {
    for (name, state) in states::all() {
        if matches!(name, "no-repository" | "not-known") {
            let page = shown(&state.status());
            assert!(!page.contains(", removed since"), "{name}");
        }
    }
}

#[test]
fn a_level_has_its_word_sign_and_colour() {
    let mut levels: BTreeMap<Level, String> = BTreeMap::new();
    for state in states::all().into_values() {
        let status = state.status();
        levels.insert(status.verdict.level, shown(&status));
    }
    assert_eq!(levels.len(), 3);

    let mut signs = Vec::new();
    for html in levels.values() {
        let (_, from_sign) = html.split_once("class=\"sign\"").unwrap();
        signs.push(from_sign.split_once("</svg>").unwrap().0);
    }

    assert!(signs[0] != signs[1] && signs[1] != signs[2] && signs[0] != signs[2]);

    for (level, html) in &levels {
        assert!(
            html.contains(&format!("<section class=\"verdict {level}\"")),
            "{level}"
        );
        assert!(
            text(html)
                .to_lowercase()
                .contains(&format!("\n{level}\nthis node ")),
            "{}",
            text(html)
        );
    }
}

#[test]
fn text_from_outside_stays_text() {
    let html = shown(&State::hostile().status());
    assert!(!html.contains("<script"), "{html}");
    assert!(!html.contains("onerror=\""));
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(
        text(&html).contains("--repo '/back ups/it'\\''s <b>'"),
        "{}",
        text(&html)
    );
}

#[test]
fn thousands_of_backups_are_folded_and_drawn_in_few_marks() {
    let status = states::all().remove("thousands").unwrap().status();
    let html = shown(&status);

    let (_, from_picture) = html.split_once("<svg class=\"picture\"").unwrap();
    let (picture, _) = from_picture.split_once("</figure>").unwrap();
    assert!(
        picture.matches("class=\"backup").count() <= 168,
        "{}",
        picture.matches("class=\"backup").count()
    );
    assert!(html.len() < 300_000, "{}", html.len());
    assert_eq!(html.matches("Commands that restore").count(), 50);
    assert!(html.contains("href=\"./?all\""));

    let zone = "UTC".parse().unwrap();
    let began = std::time::Instant::now();
    let all = page(
        &status,
        PageView {
            zone: &zone,
            all: true,
            live: false,
            notice: None,
        },
    );

    assert!(began.elapsed().as_secs() < 5);
    assert_eq!(
        all.matches("Commands that restore").count(),
        status.repository.facts.unwrap().points.len()
    );
}

#[test]
fn the_page_has_no_script_and_no_foreign_content() {
    for (name, state) in states::all() {
        let html = shown(&state.status());
        assert!(
            !html.contains("<script") && !html.contains(" style=") && !html.contains("http-equiv"),
            "{name}"
        );

        let links = html
            .split([' ', '<'])
            .filter_map(|part| part.strip_prefix("href=\"").or(part.strip_prefix("src=\"")));
        assert!(links.clone().count() > 3);
        assert!(
            links
                .clone()
                .all(|link| !link.contains("://") && !link.starts_with('/')),
            "{name}"
        );
    }
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
}

/// Relative luminance and contrast as WCAG 2.2 defines them.
fn contrast(one: &str, other: &str) -> f64 {
    let luminance = |colour: &str| {
        let channel = |at: usize| {
            let value =
                f64::from(u8::from_str_radix(colour.get(at..at + 2).unwrap(), 16).unwrap()) / 255.0;
            if value <= 0.040_45 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    };

    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[test]
fn every_text_has_enough_contrast() {
    let mut palettes: Vec<BTreeMap<&str, &str>> = Vec::new();
    for block in STYLE.split(":root {").skip(1).take(2) {
        let (colours, _) = block.split_once('}').unwrap();
        let lines = colours.split(';');
        let named = lines.filter_map(|line| line.trim().strip_prefix("--")?.split_once(": "));
        palettes.push(named.collect());
    }
    assert_eq!(palettes.len(), 2);

    for palette in palettes {
        let everywhere = ["ink", "soft", "accent", "good", "bad"]
            .into_iter()
            .flat_map(|text| ["ground", "card", "faint"].map(|ground| (text, ground)));
        let own = [
            ("good", "good-ground"),
            ("warn", "warn-ground"),
            ("warn", "card"),
            ("bad", "bad-ground"),
            ("soft", "hatch-ground"),
            ("ink", "hatch-ground"),
        ];
        let inks = ["good-ground", "warn-ground", "bad-ground"].map(|ground| ("ink", ground));
        for (text, ground) in everywhere.chain(own).chain(inks) {
            let contrast = contrast(palette[text], palette[ground]);
            assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
        }
    }
}

/// The screenshots stay in the temporary directory of the build, for people who want to see them.
#[test]
fn a_browser_shows_the_page_light_dark_and_narrow() {
    let Some(browser) = Browser::start() else {
        return;
    };

    let gallery = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&gallery).unwrap();
    for (name, state) in states::all() {
        browser.open(&shown(&state.status()));
        for screen in [Screen::WIDE, Screen::NARROW.dark()]
            .into_iter()
            .chain((name == "attention").then_some(Screen::NARROW))
        {
            browser.set(screen);

            let width = browser
                .ask("return document.documentElement.scrollWidth")
                .as_u64()
                .unwrap();
            let file = gallery.join(format!("{name}-{screen}.png"));
            std::fs::write(&file, browser.screenshot(screen)).unwrap();
            assert!(
                width <= screen.width,
                "{name} at {} is {width} wide",
                screen.width
            );

            let sized = "return getComputedStyle(document.querySelector('.verdict')).display \
                         + matchMedia('(prefers-color-scheme: dark)').matches";
            assert_eq!(
                browser.ask(sized),
                format!("flex{}", screen.is_dark),
                "the style sheet is not in use"
            );
        }
    }
}
