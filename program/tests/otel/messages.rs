//! The messages of OpenTelemetry, read byte by byte.

/// One field of a message of protobuf: a number, or bytes.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, with their numbers. Source: the encoding of Protocol Buffers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(len);
        *bytes = rest;
        taken
    }
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let len = varint(&mut bytes);
                Field::Bytes(take(&mut bytes, usize::try_from(len).unwrap()))
            }
            5 => Field::Number(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()).into()),
            other => panic!("wire type {other}"),
        };
        all.push((tag >> 3, field));
    }
    all
}

fn every<'a>(message: &'a [u8], number: u64) -> Vec<&'a [u8]> {
    let of = |(n, field): (u64, Field<'a>)| match field {
        Field::Bytes(bytes) if n == number => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(of).collect()
}

fn one(message: &[u8], number: u64) -> &[u8] {
    every(message, number).first().copied().unwrap_or_default()
}

fn number(message: &[u8], number: u64) -> u64 {
    let of = |(n, field)| match field {
        Field::Number(value) if n == number => Some(value),
        _ => None,
    };
    fields(message).into_iter().find_map(of).unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Attributes as `name=value`.
fn attributes(message: &[u8], at: u64) -> Vec<String> {
    let shown = |attribute: &[u8]| {
        let value = one(attribute, 2);
        let shown = match every(value, 1).first() {
            Some(string) => text(string),
            None => number(value, 3).to_string(),
        };
        format!("{}={shown}", text(one(attribute, 1)))
    };
    every(message, at).into_iter().map(shown).collect()
}

/// A span. Source: opentelemetry/proto/trace/v1/trace.proto.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) name: String,
    /// 2 is a server, 3 a client.
    pub(super) kind: u64,
    pub(super) took: u64,
    pub(super) attributes: Vec<String>,
    /// 2 is an error.
    pub(super) status: u64,
    pub(super) service: Vec<String>,
}

impl Span {
    pub(super) fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|has| has == attribute)
    }
}

pub(super) fn spans(request: &[u8]) -> Vec<Span> {
    let mut all = Vec::new();
    for resource in every(request, 1) {
        let service = attributes(one(resource, 1), 1);
        let scopes = every(resource, 2).into_iter();
        for span in scopes.flat_map(|scope| every(scope, 2)) {
            all.push(Span {
                trace: hex(one(span, 1)),
                id: hex(one(span, 2)),
                parent: hex(one(span, 4)),
                name: text(one(span, 5)),
                kind: number(span, 6),
                took: number(span, 8).checked_sub(number(span, 7)).unwrap(),
                attributes: attributes(span, 9),
                status: number(one(span, 15), 3),
                service: service.clone(),
            });
        }
    }
    all
}
