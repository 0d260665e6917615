//! The trace that a request belongs to. Source: W3C Trace Context, section 3.2.

use std::fmt;

use http::HeaderMap;

/// The name of the header.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// A span, in the form of `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) sampled: bool,
}

impl TraceParent {
    /// The caller's span. `None` when the header is missing, repeated, or malformed: such a request begins a
    /// trace.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        Self::read(value.to_str().ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let mut hex = |digits: usize| {
            let field = fields.next()?;
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let fits = field.len() == digits && field.bytes().all(is_hex);
            fits.then(|| u128::from_str_radix(field, 16).ok()).flatten()
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_whole = version != 0 || fields.next().is_none();
        let span = u64::try_from(span).ok()?;
        (version != 0xff && trace != 0 && span != 0 && is_whole).then_some(Self {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, sampled } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(*sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_caller_is_read() {
        let read = TraceParent::read(WHOLE).unwrap();
        assert_eq!(format!("{:032x}", read.trace), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((read.span, read.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(read.to_string(), WHOLE);
        assert!(!TraceParent::read(&WHOLE.replace("-01", "-02")).unwrap().sampled);
        // A later version may have more fields.
        assert_eq!(TraceParent::read(&format!("cc{}-what", &WHOLE[2..])), Some(read));
    }

    #[test]
    fn what_is_malformed_is_no_caller() {
        for text in [
            "",
            "00",
            &WHOLE.replace("00-4", "ff-4"),
            &WHOLE.replace("4bf9", "4BF9"),
            &WHOLE.replace("4bf9", "4bf"),
            &format!("{WHOLE}-what"),
            &WHOLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &WHOLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &WHOLE.replace("-01", "-+1"),
        ] {
            assert_eq!(TraceParent::read(text), None, "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, WHOLE.parse().unwrap());
        assert!(TraceParent::of(&headers).is_some());
        headers.append(TRACEPARENT, WHOLE.parse().unwrap());
        assert_eq!(TraceParent::of(&headers), None);
    }
}
