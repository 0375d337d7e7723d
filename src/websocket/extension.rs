//! `Sec-WebSocket-Extensions`: negotiates compression.

use axum::http::{HeaderMap, HeaderValue, header};

use super::deflate::WINDOW_BITS;

/// The negotiated compression of a connection's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// permessage-deflate, without context in either direction; the server compresses with a window of `WINDOW_BITS` bits.
    Deflate,
}

/// The offer that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NegotiatedDeflate {
    /// The client requested a limit on the server's window, so the response has to confirm one.
    server_window_is_limited: bool,
}

impl NegotiatedDeflate {
    /// The first offer that the server can satisfy (RFC 7692, section 5).
    pub fn from_offers(headers: &HeaderMap) -> Option<NegotiatedDeflate> {
        headers
            .get_all(header::SEC_WEBSOCKET_EXTENSIONS)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(negotiate)
    }

    /// The response header.
    pub fn header_value(self) -> HeaderValue {
        // The server may require `client_no_context_takeover` whether it was offered or not (section 7.1.1.2). It does, so that
        // it keeps no window for a client that is silent for hours.
        HeaderValue::from_static(if self.server_window_is_limited {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12"
        } else {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        })
    }
}

/// `None` for an offer of another extension, a malformed one, or one with a smaller window than [`WINDOW_BITS`].
fn negotiate(offer: &str) -> Option<NegotiatedDeflate> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut deflate = NegotiatedDeflate {
        server_window_is_limited: false,
    };
    for parameter in parts {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
            None => (parameter, None),
        };
        // Section 7.1: an offer with a repeated or unknown parameter, or with an invalid value, must be declined.
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
                deflate.server_window_is_limited = true;
            }
            _ => return None,
        }
    }
    Some(deflate)
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

    fn negotiated(offers: &[&'static str]) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(
                header::SEC_WEBSOCKET_EXTENSIONS,
                HeaderValue::from_static(offer),
            );
        }
        NegotiatedDeflate::from_offers(&headers).map(NegotiatedDeflate::header_value)
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
            let answer = negotiated(&[offer]).unwrap();
            let limited = offer.contains("server_max_window_bits");
            let expected = if limited {
                format!("{PLAIN}; server_max_window_bits={WINDOW_BITS}")
            } else {
                PLAIN.to_owned()
            };
            assert_eq!(answer, expected, "{offer}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_satisfied_is_accepted() {
        assert_eq!(
            negotiated(&["permessage-deflate; server_max_window_bits=9, permessage-deflate"])
                .unwrap(),
            PLAIN
        );
        assert_eq!(
            negotiated(&["x-webkit-deflate-frame", "permessage-deflate"]).unwrap(),
            PLAIN
        );
    }

    #[test]
    fn offers_that_cannot_be_satisfied_are_declined() {
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
            assert_eq!(negotiated(&[offer]), None, "{offer}");
        }
    }
}
