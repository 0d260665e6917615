//! The console: a page for operators and its files, compiled into the program.

use std::io::{self, Write};
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

const PAGE: &str = include_str!("../../console/index.html");
const CODE: &str = include_str!("../../console/app.js");
const STYLE: &str = include_str!("../../console/app.css");
const ICON: &str = include_str!("../../console/icon.svg");

/// Nothing is loaded from another origin, and no text can become script or markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// The headers of every answer to a browser.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Marks an answer of the API: a browser must not cache it, must not guess its type, and must not run
/// anything when the answer is opened as a page.
pub(crate) async fn unkept(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The place of the page, which decides who authenticates. Every URL in the page is relative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At `/`, beside `/api/v1`. The page asks for a token.
    Root,
    /// At `/console/`, for a router that is nested behind an authentication of the embedder. A nested router
    /// of axum cannot answer at its own root with a slash, which relative URLs need.
    Below,
}

/// A file of the console, ready to be sent.
struct File {
    name: String,
    media_type: &'static str,
    plain: Bytes,
    zipped: Bytes,
    /// Whether the name contains a hash of the bytes.
    hashed: bool,
}

impl File {
    fn new(name: String, media_type: &'static str, text: &str, hashed: bool) -> Self {
        Self { name, media_type, plain: Bytes::from(text.to_owned()), zipped: zip(text), hashed }
    }

    /// A file whose name contains the hash of its bytes: `app-0f3c9a….js`.
    fn hashed(name: &str, media_type: &'static str, text: &str) -> Self {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        let name = match name.split_once('.') {
            Some((stem, extension)) => format!("{stem}-{}.{extension}", &hash[..16]),
            None => name.to_owned(),
        };
        Self::new(name, media_type, text, true)
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let zipped = !self.zipped.is_empty() && takes_gzip(asked);
        let bytes = if zipped { self.zipped.clone() } else { self.plain.clone() };
        let mut response = bytes.into_response();
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        let cached = if self.hashed { "public, max-age=31536000, immutable" } else { "no-store" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cached));
        if zipped {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// The text in gzip. Empty when compression fails: the file is then sent as it is.
fn zip(text: &str) -> Bytes {
    let zipped = || -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes())?;
        encoder.finish()
    };
    zipped().map(Bytes::from).unwrap_or_default()
}

/// Whether a client accepts gzip: the header names it, with a quality above 0.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(header::ACCEPT_ENCODING).iter();
    let codings = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    codings.map(|coding| coding.split(';').map(str::trim)).any(|mut parts| {
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let quality = parts.find_map(|part| part.strip_prefix("q="));
        let refused = quality.is_some_and(|quality| quality.parse() == Ok(0.0_f32));
        named && !refused
    })
}

/// The page and the files that it names.
fn files(place: Place) -> [File; 4] {
    let code = File::hashed("app.js", "text/javascript; charset=utf-8", CODE);
    let style = File::hashed("app.css", "text/css; charset=utf-8", STYLE);
    let icon = File::hashed("icon.svg", "image/svg+xml", ICON);
    let (api, login) = match place {
        Place::Root => ("api/v1/", "token"),
        Place::Below => ("../api/v1/", "own"),
    };
    let page = PAGE
        .replace("\"app.js\"", &format!("\"{}\"", code.name))
        .replace("\"app.css\"", &format!("\"{}\"", style.name))
        .replace("\"icon.svg\"", &format!("\"{}\"", icon.name))
        .replace("data-api=\"\"", &format!("data-api=\"{api}\""))
        .replace("data-login=\"\"", &format!("data-login=\"{login}\""));
    [File::new(String::new(), "text/html; charset=utf-8", &page, false), code, style, icon]
}

/// The routes of the console.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(place: Place) -> Router<S> {
    let mut router = Router::new();
    let directory = match place {
        Place::Root => "/",
        Place::Below => {
            let slash = [(header::LOCATION, "console/")];
            router = router.route("/console", get((StatusCode::TEMPORARY_REDIRECT, slash)));
            "/console/"
        }
    };
    for file in files(place) {
        let path = format!("{directory}{}", file.name);
        let file = Arc::new(file);
        let answer = async move |asked: HeaderMap| file.answer(&asked);
        router = router.route(&path, get(answer));
    }
    router
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_console_is_small() {
        let together = PAGE.len() + CODE.len() + STYLE.len() + ICON.len();
        assert!(together <= 80 * 1024, "{together} bytes are more than 80 KiB");
    }

    /// The functions that turn text into markup or script, and the ways to reach another origin.
    #[test]
    fn text_stays_text() {
        let forbidden = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "srcdoc",
            "DOMParser",
            "createContextualFragment",
            "setHTMLUnsafe",
            "eval(",
            "new Function",
            "import(",
            "import ",
            "javascript:",
            "WebSocket",
            "EventSource",
            "sendBeacon",
            "XMLHttpRequest",
            ".setAttribute(\"on",
            ".setAttribute(\"style",
            "http://",
            "https://",
            "localhost",
        ];
        let namespaces = ["http://www.w3.org/2000/svg"];
        for (name, text) in [("page", PAGE), ("code", CODE), ("style", STYLE), ("icon", ICON)] {
            let text = namespaces.iter().fold(text.to_owned(), |text, name| text.replace(name, ""));
            for word in forbidden {
                assert!(!text.contains(word), "the {name} has {word}");
            }
        }
        for inline in [" style=", " onclick=", " onload=", "<style", "<script>"] {
            assert!(!PAGE.contains(inline), "the page has {inline}");
        }
    }

    #[test]
    fn the_page_names_its_files_by_their_bytes() {
        for place in [Place::Root, Place::Below] {
            let [page, named @ ..] = files(place);
            let text = String::from_utf8(page.plain.to_vec()).unwrap();
            assert!(!page.hashed && named.iter().all(|file| file.hashed));
            for file in named {
                let hash = blake3::hash(&file.plain).to_hex();
                assert!(file.name.contains(&hash[..16]), "{}", file.name);
                assert!(text.contains(&format!("=\"{}\"", file.name)), "{}", file.name);
            }
            for name in
                ["app.js", "app.css", "icon.svg", "=\"/", "data-api=\"\"", "data-login=\"\""]
            {
                assert!(!text.contains(name), "{name}");
            }
            assert_eq!(text.contains("data-login=\"token\""), place == Place::Root);
            assert_eq!(text.contains("data-api=\"../api/v1/\""), place == Place::Below);
        }
    }

    #[test]
    fn gzip_is_for_those_who_take_it_and_unpacks_to_the_same() {
        let asked = |value: &'static str| {
            HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))])
        };
        for yes in ["gzip", "br, GZIP;q=0.5", "gzip ; q=1"] {
            assert!(takes_gzip(&asked(yes)), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip; q=0.0", "x-gzip"] {
            assert!(!takes_gzip(&asked(no)), "{no}");
        }
        for file in files(Place::Root) {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&file.zipped[..]).read_to_end(&mut text).unwrap();
            assert_eq!(text, file.plain);
            let zipped = file.answer(&asked("gzip"));
            assert_eq!(zipped.headers()[header::CONTENT_ENCODING], "gzip");
            assert!(!file.answer(&HeaderMap::new()).headers().contains_key("content-encoding"));
        }
    }

    #[test]
    fn every_file_has_the_headers() {
        for file in files(Place::Below) {
            let response = file.answer(&HeaderMap::new());
            let headers = response.headers();
            for (name, value) in HEADERS {
                assert_eq!(headers[&name], value);
            }
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
            let cached = headers[header::CACHE_CONTROL].to_str().unwrap();
            assert_eq!(cached.contains("immutable"), file.hashed, "{}", file.name);
        }
    }
}
