//! Whom to tell: a command, or a place on the web.

use std::fmt;
use std::str::FromStr;

/// Somebody who is told that something happened.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// A program and its arguments; no shell reads them.
    Command(Vec<String>),
    /// A URL. Often it holds a secret, and is never shown.
    Web(String),
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("https://") || text.starts_with("http://") {
            return match text.split_once("://") {
                Some((_, rest))
                    if !rest.is_empty()
                        && !rest.starts_with('/')
                        && !text.contains(char::is_whitespace) =>
                {
                    Ok(Self::Web(text.to_owned()))
                }
                _ => Err("it is no URL".to_owned()),
            };
        }
        match shlex::split(text) {
            None => Err("it has a quotation mark without its other half".to_owned()),
            Some(words) if words.first().is_none_or(String::is_empty) => {
                Err("it names no program".to_owned())
            }
            Some(words) => Ok(Self::Command(words)),
        }
    }
}

/// The program, or scheme and host.
impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(words) => f.write_str(words.first().map_or("", String::as_str)),
            Self::Web(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
                let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
                write!(
                    f,
                    "{scheme}://{}",
                    place.rsplit('@').next().unwrap_or_default()
                )
            }
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_and_nothing_is_expanded() {
        let words = |text: &str| match text.parse() {
            Ok(Hook::Command(words)) => words,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            words("mail -s 'a backup' ops"),
            ["mail", "-s", "a backup", "ops"]
        );
        assert_eq!(
            words("sh -c \"cat > $HOME/x, *\""),
            ["sh", "-c", "cat > $HOME/x, *"]
        );
        for text in [
            "",
            "  ",
            "'",
            "\"a",
            "''",
            "http://",
            "https:///path",
            "https://a b",
        ] {
            assert!(text.parse::<Hook>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_url_holds_is_not_shown() {
        let hook: Hook = "https://user:hunter2@hooks.example:8443/services/hunter2?token=hunter2"
            .parse()
            .unwrap();
        assert_eq!(
            format!("{hook} {hook:?}"),
            "https://hooks.example:8443 https://hooks.example:8443"
        );
        let hook: Hook = "/usr/bin/notify --token hunter2".parse().unwrap();
        assert_eq!(hook.to_string(), "/usr/bin/notify");
    }
}
