//! The pages of the board, rewritten to work under the path of the queue console.
//!
//! They are compiled for a server that serves nothing else: all their paths begin at `/`. So the page, and the glue code between it and its
//! WebAssembly, are rewritten once at start: outgoing URLs (requests, links, history) get the prefix, incoming ones (the current
//! path) lose it. A test checks every rewritten piece against the version of the board in use.

use std::sync::Arc;

use apalis_board::axum::ui::ServeUI;
use axum::body::Bytes;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use crate::api::csp_hash::hash_between;
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;

/// The path of the queue console. Browsers send the cookie nowhere else.
pub(super) const PREFIX: &str = "/admin/queue";

const INDEX: &str = "index.html";

/// Inserted before the glue code. `inside` returns the path as the board expects it, `under` the real one.
const PRELUDE: &str = r#"const PREFIX = "/admin/queue";
const inside = (path) =>
  path === PREFIX || path.startsWith(PREFIX + "/") ? path.slice(PREFIX.length) || "/" : path;
const under = (url) => {
  const at = url.startsWith(location.origin + "/") ? location.origin.length : 0;
  const path = url.slice(at);
  return path.startsWith("/") && inside(path) === path ? url.slice(0, at) + PREFIX + path : url;
};
"#;

/// Pieces of the glue code, their replacements, and how often each occurs.
const GLUE: &[(&str, &str, usize)] = &[
    (
        "const ret = arg1.pathname;",
        "const ret = inside(arg1.pathname);",
        2,
    ),
    (
        "new Request(getStringFromWasm0(arg0, arg1)",
        "new Request(under(getStringFromWasm0(arg0, arg1))",
        2,
    ),
    (
        "new EventSource(getStringFromWasm0(arg0, arg1)",
        "new EventSource(under(getStringFromWasm0(arg0, arg1))",
        1,
    ),
    (
        "State(arg1, getStringFromWasm0(arg2, arg3), arg4 === 0 ? undefined : getStringFromWasm0(arg4, arg5))",
        "State(arg1, getStringFromWasm0(arg2, arg3), arg4 === 0 ? undefined : under(getStringFromWasm0(arg4, arg5)))",
        2,
    ),
    (
        "arg0.href = getStringFromWasm0(arg1, arg2);",
        "arg0.href = under(getStringFromWasm0(arg1, arg2));",
        1,
    ),
    (
        "arg0.setAttribute(getStringFromWasm0(arg1, arg2), getStringFromWasm0(arg3, arg4));",
        "const name = getStringFromWasm0(arg1, arg2);
            const value = getStringFromWasm0(arg3, arg4);
            arg0.setAttribute(name, name === \"href\" ? under(value) : value);",
        1,
    ),
    (
        "arg0.innerHTML = getStringFromWasm0(arg1, arg2);",
        "arg0.innerHTML = getStringFromWasm0(arg1, arg2).replaceAll('href=\"/', 'href=\"' + PREFIX + '/');",
        1,
    ),
];

const LOGOUT: &str = r#"<form method="post" action="/admin/queue/logout" style="position:fixed;right:1rem;bottom:.75rem;z-index:50">
<button style="font-size:.75rem;padding:.25rem .75rem;border:1px solid #444;border-radius:.25rem;background:#1a1b1f">Log out</button>
</form>
"#;

/// The two files that are rewritten.
pub(super) struct Pages {
    index: Bytes,
    policy: String,
    glue: Bytes,
}

impl Pages {
    pub fn new() -> Pages {
        let index = rewritten_index(&text_of(INDEX));
        let script = hash_between(&index, "<script type=\"module\">", "</script>");
        // The board compiles WebAssembly and has inline styles.
        let policy = format!(
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' '{script}'; style-src 'self' 'unsafe-inline'; \
             img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'self'; \
             frame-ancestors 'none'"
        );
        let glue = glue_name(&text_of(INDEX)).map_or_else(String::new, |name| text_of(&name));
        Pages {
            index: Bytes::from(index),
            policy,
            glue: Bytes::from(rewritten_glue(&glue)),
        }
    }
}

/// Whether a path is a page, and not a file or the API of the board.
pub(super) fn is_page(path: &str) -> bool {
    !path.starts_with("/api/") && !path.contains('.')
}

/// A page of the board, or a file that it loads.
pub(super) async fn page(pages: Arc<Pages>, uri: Uri) -> Result<Response, Problem> {
    let path = uri.path();
    if is_page(path) {
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            // So that a browser sends the origin of the logout form.
            (header::REFERRER_POLICY, "same-origin"),
            (header::CONTENT_SECURITY_POLICY, &pages.policy),
        ];
        return Ok((headers, pages.index.clone()).into_response());
    }
    let file = ServeUI::get_file(path).ok_or_else(|| {
        Problem::new(
            ProblemKind::NotFound,
            "the queue console has no such file; it starts at /admin/queue",
        )
    })?;
    let body = if path.ends_with(".js") {
        pages.glue.clone()
    } else {
        Bytes::copy_from_slice(file.contents())
    };
    let headers = [
        (header::CONTENT_TYPE, ServeUI::content_type(path)),
        // Revalidated each time: the file name does not change with the rewriting.
        (header::CACHE_CONTROL, "private, no-cache"),
    ];
    Ok((headers, body).into_response())
}

fn text_of(name: &str) -> String {
    ServeUI::get_file(name)
        .and_then(|file| file.contents_utf8())
        .unwrap_or_default()
        .to_owned()
}

fn rewritten_index(index: &str) -> String {
    // The integrity digest is that of the file before the rewriting.
    let preload = "<link rel=\"modulepreload\"";
    let index = match index.split_once(preload) {
        Some((before, link)) => {
            let (link, after) = link.split_once('>').unwrap_or((link, ""));
            let href = link.split(" integrity=").next().unwrap_or_default();
            format!("{before}{preload}{href}>{after}")
        }
        None => index.to_owned(),
    };
    index
        .replace("href=\"/", &format!("href=\"{PREFIX}/"))
        .replace("'/apalis-board-web", &format!("'{PREFIX}/apalis-board-web"))
        // Otherwise a browser requests /favicon.ico.
        .replace("</title>", "</title><link rel=\"icon\" href=\"data:,\">")
        .replace("</body>", &format!("{LOGOUT}</body>"))
}

fn glue_name(index: &str) -> Option<String> {
    let (_, rest) = index.split_once("from '/")?;
    let (name, _) = rest.split_once('\'')?;
    Some(name.to_owned())
}

fn rewritten_glue(glue: &str) -> String {
    let rewritten = GLUE.iter().fold(glue.to_owned(), |glue, (from, to, _)| {
        glue.replace(from, to)
    });
    format!("{PRELUDE}{rewritten}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_that_is_rewritten_exists() {
        let index = text_of(INDEX);
        let glue = text_of(&glue_name(&index).unwrap());
        for (from, to, times) in GLUE {
            assert_eq!(glue.matches(from).count(), *times, "{from}");
            assert_eq!(rewritten_glue(&glue).matches(to).count(), *times, "{to}");
        }
        let rewritten = rewritten_index(&index);
        assert!(rewritten.contains("<base href=\"/admin/queue/\" />"));
        assert!(rewritten.contains("from '/admin/queue/apalis-board-web-"));
        assert!(rewritten.contains("module_or_path: '/admin/queue/apalis-board-web-"));
        assert_eq!(rewritten.matches("/admin/queue/logout").count(), 1);
        // Every other path begins with the prefix.
        let elsewhere = rewritten.replace("/admin/queue/", "");
        for outside in ["href=\"/", "'/", "src=", "http://", "https://"] {
            assert!(!elsewhere.contains(outside), "{outside} in {rewritten}");
        }
        // The remaining digests are those of files that are served unchanged.
        assert_eq!(rewritten.matches("integrity=").count(), 2);
        assert!(!rewritten.contains(".js\" crossorigin=\"anonymous\" integrity="));
        assert!(!Pages::new().policy.contains(&hash_between("", "<", ">")));
    }
}
