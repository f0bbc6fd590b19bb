//! A pure walk over a body by its shape, before anything is decoded.
//!
//! `Vec::with_capacity` straight from the wire lets a Metadata body of five bytes ask for 154 GB and abort the process.
//! So no decoder of the `kafka-protocol` crate sees a body that has not been walked: every array, string and length is
//! held against the bytes that are left, an array at the least its elements take; nulls are only where the version has
//! them; the body ends where its shape ends. The walk allocates nothing, and its depth is the table's, not the input's.

use bytes::Bytes;

use crate::api::{Api, ApiKey};
use crate::reader::{Malformed, Reader};
use crate::shapes::{self, Field, Kind};

/// Where a body departs from its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{api} v{version}, field {field}: {condition}")]
pub struct WalkError {
    /// Of which API.
    pub api: ApiKey,
    /// In which version.
    pub version: i16,
    /// The innermost field that was being read.
    pub field: &'static str,
    /// What is wrong there.
    pub condition: Malformed,
}

/// What a walk saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Structures and strings in arrays, and tagged fields: what decoding will allocate for. At most
    /// [`crate::reader::ELEMENTS_MAX`].
    pub elements: usize,
}

/// Walks a request body to the end of its message.
///
/// Bytes behind it are nobody's, and no error: Kafka reads over them, and librdkafka sends three with each Metadata request
/// for all topics.
///
/// # Errors
/// The first departure from the shape.
pub fn walk_request(api: &Api, version: i16, body: &Bytes) -> Result<Walked, WalkError> {
    let (walked, _) = walk_message(shapes::request(api.key), version, api.is_flexible(version), body);
    walked.map_err(|(field, condition)| WalkError { api: api.key, version, field, condition })
}

/// Walks a response body to its last byte.
///
/// # Errors
/// The first departure from the shape.
pub fn walk_response(api: &Api, version: i16, body: &Bytes) -> Result<Walked, WalkError> {
    walk_fields(shapes::response(api.key), version, api.is_flexible(version), body)
        .map_err(|(field, condition)| WalkError { api: api.key, version, field, condition })
}

/// Walks a body made of `fields` to its last byte.
///
/// # Errors
/// The innermost field that was being read, and what is wrong there.
pub fn walk_fields(
    fields: &'static [Field],
    version: i16,
    flexible: bool,
    body: &Bytes,
) -> Result<Walked, (&'static str, Malformed)> {
    let (walked, reader) = walk_message(fields, version, flexible, body);
    let walked = walked?;
    reader.end().map_err(|condition| ("(body)", condition))?;
    Ok(walked)
}

fn walk_message<'a>(
    fields: &'static [Field],
    version: i16,
    flexible: bool,
    body: &'a Bytes,
) -> (Result<Walked, (&'static str, Malformed)>, Reader<'a>) {
    let mut reader = Reader::new(body, flexible);
    let mut walk = Walk { version, field: "(body)" };
    let walked = walk.fields(&mut reader, fields);
    let elements = reader.elements();
    (walked.map(|()| Walked { elements }).map_err(|condition| (walk.field, condition)), reader)
}

struct Walk {
    version: i16,
    /// The field that is being read, for the error.
    field: &'static str,
}

impl Walk {
    fn fields(&mut self, reader: &mut Reader<'_>, fields: &'static [Field]) -> Result<(), Malformed> {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.field(reader, field)?;
        }
        reader.tagged(|tag, content| {
            let mut tagged = fields.iter().filter(|field| field.tag == Some(tag) && field.is_in(version));
            tagged.next().map_or(Ok(false), |field| self.field(content, field).map(|()| true))
        })
    }

    fn field(&mut self, reader: &mut Reader<'_>, field: &'static Field) -> Result<(), Malformed> {
        self.field = field.name;
        self.value(reader, &field.kind, field.may_be_null(self.version))
    }

    fn value(
        &mut self,
        reader: &mut Reader<'_>,
        kind: &'static Kind,
        may_be_null: bool,
    ) -> Result<(), Malformed> {
        let at = reader.position();
        let not_null = |length: Option<usize>| match length {
            None if !may_be_null => Err(Malformed::Null { at }),
            length => Ok(length.unwrap_or(0)),
        };
        match kind {
            Kind::Bool | Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 | Kind::Uuid => {
                reader.skip(kind.bytes_min(self.version, reader.is_flexible()))
            }
            Kind::Str => {
                let length = not_null(reader.string_length()?)?;
                reader.skip(length)
            }
            Kind::Bytes | Kind::Records => {
                let length = not_null(reader.bytes_length()?)?;
                reader.skip(length)
            }
            Kind::Array(element) => {
                let bytes_min = element.bytes_min(self.version, reader.is_flexible());
                let count = not_null(reader.array_or_null(bytes_min)?)?;
                if element.is_fixed() {
                    return reader.skip(count * bytes_min);
                }
                reader.count_elements(count)?;
                (0..count).try_for_each(|_| self.value(reader, element, false))
            }
            Kind::Struct(fields) => self.fields(reader, fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_bytes_cannot_ask_for_154_gigabytes() {
        let body = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0]);
        let error = walk_request(ApiKey::Metadata.api(), 1, &body).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Metadata v1, field topics: byte 0: an array claims 2147483647 elements of at least 2 bytes, 1 bytes left"
        );
    }

    #[test]
    fn a_good_body_is_walked_and_its_elements_counted() {
        // Metadata v1 of topics "a" and "bc".
        let body = Bytes::from_static(&[0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c']);
        assert_eq!(walk_request(ApiKey::Metadata.api(), 1, &body), Ok(Walked { elements: 2 }));
        let all_topics = Bytes::from_static(&[0xff; 4]);
        assert_eq!(walk_request(ApiKey::Metadata.api(), 1, &all_topics), Ok(Walked { elements: 0 }));
        let error = walk_request(ApiKey::Metadata.api(), 0, &all_topics).unwrap_err();
        assert_eq!(error.condition, Malformed::Null { at: 0 });
        let longer = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(walk_request(ApiKey::Metadata.api(), 1, &longer), Ok(Walked { elements: 0 }));
    }
}
