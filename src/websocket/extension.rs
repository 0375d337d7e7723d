//! `Sec-WebSocket-Extensions`: which compression a client offers, and what is agreed.

use axum::http::{HeaderMap, HeaderValue, header};

use super::deflate::WINDOW_BITS;

/// Whether a connection's messages may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// permessage-deflate, without context in either direction, with a window of [`WINDOW_BITS`] bits from us.
    Deflate,
}

/// What a client is told of the offer that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// The client asked for a bound of our window.
    window_is_bounded: bool,
}

impl Agreed {
    /// The first offer that can be kept (RFC 7692, section 5).
    pub fn from_offers(headers: &HeaderMap) -> Option<Agreed> {
        headers
            .get_all(header::SEC_WEBSOCKET_EXTENSIONS)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(agree)
    }

    pub fn answer(self) -> HeaderValue {
        // `client_no_context_takeover` may be demanded whether it was offered or not (section 7.1.1.2): no window is kept for
        // a client that says nothing for hours.
        HeaderValue::from_static(if self.window_is_bounded {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12"
        } else {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        })
    }
}

/// `None` for an offer that is another extension, is malformed, or asks for a smaller window than ours.
fn agree(offer: &str) -> Option<Agreed> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut agreed = Agreed {
        window_is_bounded: false,
    };
    for parameter in parts {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
            None => (parameter, None),
        };
        // Section 7.1: an offer with a parameter twice, unknown, or with a value that does not fit must be declined.
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(bits)) => {
                window_bits(bits)?;
            }
            ("server_max_window_bits", Some(bits)) if window_bits(bits)? >= WINDOW_BITS => {
                agreed.window_is_bounded = true;
            }
            _ => return None,
        }
    }
    Some(agreed)
}

fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

/// 8 to 15, without leading zeros (section 7.1.2).
fn window_bits(text: &str) -> Option<u8> {
    ["8", "9", "10", "11", "12", "13", "14", "15"]
        .contains(&text)
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offers: &[&'static str]) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(
                header::SEC_WEBSOCKET_EXTENSIONS,
                HeaderValue::from_static(offer),
            );
        }
        Agreed::from_offers(&headers).map(Agreed::answer)
    }

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn offers_of_well_known_clients_are_accepted() {
        for offer in [
            "permessage-deflate",
            // Chromium, and Node's ws
            "permessage-deflate; client_max_window_bits",
            // Python's websockets
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            "Permessage-Deflate ; client_no_context_takeover;server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=\"15\"",
        ] {
            let answer = answer(&[offer]).unwrap();
            let bounded = offer.contains("server_max_window_bits");
            let expected = if bounded {
                format!("{PLAIN}; server_max_window_bits={WINDOW_BITS}")
            } else {
                PLAIN.to_owned()
            };
            assert_eq!(answer, expected, "{offer}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_kept_counts() {
        assert_eq!(
            answer(&["permessage-deflate; server_max_window_bits=9, permessage-deflate"]).unwrap(),
            PLAIN
        );
        assert_eq!(
            answer(&["x-webkit-deflate-frame", "permessage-deflate"]).unwrap(),
            PLAIN
        );
    }

    #[test]
    fn what_cannot_be_kept_is_declined() {
        for offer in [
            "",
            ";",
            "x-webkit-deflate-frame",
            "permessage-bzip2",
            "permessage-deflate; server_max_window_bits=11",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=012",
            "permessage-deflate; server_max_window_bits=+12",
            "permessage-deflate; server_max_window_bits=-1",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; unknown",
            "permessage-deflate;",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
    }
}
