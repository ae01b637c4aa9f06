//! Hooks: the commands and URLs that the agent tells of its runs.

use std::fmt;
use std::str::FromStr;

/// A receiver of messages.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// A program with its arguments. It is started without a shell.
    Command(Vec<String>),
    /// A URL. It often holds a secret, so neither `Display` nor `Debug` shows more than its host.
    Web(String),
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for scheme in ["https://", "http://"] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return web(text, rest);
            }
        }

        let Some(words) = shlex::split(text) else {
            return Err("a quotation mark is not closed".to_owned());
        };
        if words.first().is_none_or(String::is_empty) {
            return Err("no program is named".to_owned());
        }
        Ok(Self::Command(words))
    }
}

/// A hook for a URL, whose `rest` follows after the scheme.
fn web(url: &str, rest: &str) -> Result<Hook, String> {
    let has_host = !rest.is_empty() && !rest.starts_with('/');
    if !has_host || url.contains(char::is_whitespace) {
        return Err("this is not a valid URL".to_owned());
    }
    Ok(Hook::Web(url.to_owned()))
}

/// Shows the program, or the scheme and the host.
impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(words) => f.write_str(words.first().map_or("", String::as_str)),
            Self::Web(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = authority.rsplit('@').next().unwrap_or_default();
                write!(f, "{scheme}://{host}")
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
