//! A compact encoding of a line of a program's log.

use serde::{Deserialize, Serialize};

/// Lines that the runtime itself writes hold a program and small numbers; all others are stored as text.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLine {
    Invoked { program: u8, depth: u32 },
    Succeeded { program: u8 },
    Consumed { program: u8, units: u64, limit: u64 },
    Text(String),
}

impl LogLine {
    /// `addresses`: the message's addresses as text, in its order.
    pub fn parse(line: &str, addresses: &[String]) -> Self {
        match Self::parse_runtime_line(line, addresses) {
            // A number can be written in more than one way: only a line that renders identically is encoded.
            Some(parsed) if parsed.render(addresses) == line => parsed,
            _ => Self::Text(line.to_owned()),
        }
    }

    fn parse_runtime_line(line: &str, addresses: &[String]) -> Option<Self> {
        let (program, rest) = line.strip_prefix("Program ")?.split_once(' ')?;
        let program = addresses.iter().position(|address| address == program)?;
        let program = u8::try_from(program).ok()?;
        if rest == "success" {
            return Some(Self::Succeeded { program });
        }
        if let Some(depth) = rest.strip_prefix("invoke [") {
            let depth = depth.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Invoked { program, depth });
        }
        let (units, limit) = rest
            .strip_prefix("consumed ")?
            .strip_suffix(" compute units")?
            .split_once(" of ")?;
        Some(Self::Consumed {
            program,
            units: units.parse().ok()?,
            limit: limit.parse().ok()?,
        })
    }

    pub fn render(&self, addresses: &[String]) -> String {
        let name = |program: &u8| {
            addresses
                .get(usize::from(*program))
                .map(String::as_str)
                .unwrap_or_default()
        };
        match self {
            Self::Invoked { program, depth } => {
                format!("Program {} invoke [{depth}]", name(program))
            }
            Self::Succeeded { program } => format!("Program {} success", name(program)),
            Self::Consumed {
                program,
                units,
                limit,
            } => format!(
                "Program {} consumed {units} of {limit} compute units",
                name(program)
            ),
            Self::Text(text) => text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_renders_as_it_was_written() {
        let addresses = vec!["Tokenkeg".to_owned(), "Memo".to_owned()];
        for (line, is_text) in [
            ("Program Tokenkeg invoke [1]", false),
            ("Program Memo success", false),
            (
                "Program Tokenkeg consumed 119 of 199881 compute units",
                false,
            ),
            ("Program Tokenkeg consumed 0119 of 1 compute units", true),
            ("Program Unknown success", true),
            ("Program log: Memo (len 2): \"g1\"", true),
            ("Program Tokenkeg failed: custom program error: 0x1", true),
            ("Program Tokenkeg invoke [+1]", true),
            ("Log truncated", true),
            ("", true),
        ] {
            let parsed = LogLine::parse(line, &addresses);
            assert_eq!(matches!(parsed, LogLine::Text(_)), is_text, "{line}");
            assert_eq!(parsed.render(&addresses), line);
        }
    }
}
