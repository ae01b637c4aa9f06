//! The shapes of the picture, and their places.

use std::time::Duration;

use maud::{Markup, html};

use super::timeline::SLOTS;

/// A shape of ten by ten around its place.
pub(super) fn symbol(name: &str, shape: &Markup) -> Markup {
    html! { g id=(name) { g transform="translate(-5 -5)" { (shape) } } }
}

/// A shape in a slot. Its text appears when the reader points at it.
pub(super) fn mark(slot: u32, y: u32, shape: &str, class: &str, text: &str) -> Markup {
    let (class, shape) = (format!("mark {class}"), format!("#{shape}"));

    html! {
        g class=(class) {
            title { (text) }
            use href=(shape) x=(middle(slot)) y=(y) {}
        }
    }
}

/// The name of a lane. `scale` says what its largest height means.
pub(super) fn lane(name: &str, y: u32, scale: Option<&str>) -> Markup {
    html! {
        text.lane x="0" y=(y) {
            (name)
            @if let Some(scale) = scale { tspan.scale dx="6" { (scale) } }
        }
    }
}

/// A share from 0 to 1, as SVG takes it.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

/// The middle of a slot.
pub(super) fn middle(slot: u32) -> String {
    percent((f64::from(slot) + 0.5) / f64::from(SLOTS))
}

/// The height of a number of bytes, from 0 to 1. The largest number in the picture has 1.
pub(super) fn height_of_bytes(bytes: u64, largest: u64) -> f64 {
    magnitude(bytes >> 10, largest >> 10)
}

/// The height of a length of time, from 0 to 1. The longest in the picture has 1. Less than half a
/// second counts as 0.
pub(super) fn height_of_time(time: Duration, longest: Duration) -> f64 {
    magnitude(half_seconds(time), half_seconds(longest))
}

fn half_seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / 500).unwrap_or(u64::MAX)
}

/// The logarithm of a value, as a share of the largest. So factors look like equal steps.
fn magnitude(value: u64, largest: u64) -> f64 {
    let whole = logarithm(largest);
    if whole > 0.0 {
        logarithm(value) / whole
    } else {
        0.0
    }
}

fn logarithm(value: u64) -> f64 {
    (1.0 + f64::from(u32::try_from(value).unwrap_or(u32::MAX))).ln()
}
