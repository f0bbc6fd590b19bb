//! Bodies written from the table of shapes, for tests here and in the rooms that face the network.
//!
//! One writer makes the good bodies and remembers where it wrote lengths; the hostile ones are the good ones with a
//! length replaced. So whatever array or string the table gains, its hostile inputs come with it.

use crate::api::Api;
use crate::shapes::{self, Field, Kind};

/// How much a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nulls where allowed, else nothing; no tagged field.
    Least,
    /// Two elements in each array, nothing null, every known tagged field.
    Most,
    /// Up to three elements, a null or a tagged field now and then.
    Random,
    /// As `Most`, and a tagged field that nobody knows at the end of each structure.
    Foreign,
}

/// A body that follows its shape.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its bytes.
    pub body: Vec<u8>,
    /// Where lengths and counts stand in it.
    pub lengths: Vec<Length>,
}

/// A length or count in a [`Sample`].
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// Of which field.
    pub field: &'static str,
    /// Where it stands.
    pub at: usize,
    /// How many bytes it takes.
    pub bytes: usize,
    /// Whether the field may be null.
    pub may_be_null: bool,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    I16,
    I32,
    /// A varint of the length plus one.
    Compact,
    /// A varint of the length: counts and sizes of tagged fields.
    Plain,
}

/// Writes a request body of `api` in `version`, drawing every choice from `random`.
pub fn request(api: &Api, version: i16, fill: Fill, random: &mut dyn FnMut() -> u64) -> Sample {
    body(shapes::request(api.key), version, api.is_flexible(version), fill, random)
}

/// Writes a response body of `api` in `version`, drawing every choice from `random`.
pub fn response(api: &Api, version: i16, fill: Fill, random: &mut dyn FnMut() -> u64) -> Sample {
    body(shapes::response(api.key), version, api.is_flexible(version), fill, random)
}

fn body(
    fields: &'static [Field],
    version: i16,
    flexible: bool,
    fill: Fill,
    random: &mut dyn FnMut() -> u64,
) -> Sample {
    let sample = Sample { body: Vec::new(), lengths: Vec::new() };
    let mut pen = Pen { sample, version, flexible, fill, random };
    pen.fields(fields);
    pen.sample
}

/// A sequence of numbers that looks random and is the same for the same seed.
pub fn sequence(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Sample {
    /// Every body that comes of this one by giving one of its lengths a value no body of this size can honour. All of
    /// them must be refused.
    pub fn hostile(&self) -> Vec<(Length, Vec<u8>)> {
        let mut bodies = Vec::new();
        for length in &self.lengths {
            for lie in length.lies(self.body.len()) {
                let mut body = self.body[..length.at].to_vec();
                body.extend_from_slice(&lie);
                body.extend_from_slice(&self.body[length.at + length.bytes..]);
                bodies.push((*length, body));
            }
        }
        bodies
    }
}

impl Length {
    fn lies(&self, body_bytes: usize) -> Vec<Vec<u8>> {
        let beyond = body_bytes as u32 + 1;
        let null = !self.may_be_null;
        match self.form {
            Form::I16 => {
                let lies = [Some(i16::MAX), Some(i16::MIN), Some(-2), null.then_some(-1)];
                lies.into_iter().flatten().map(|lie| lie.to_be_bytes().to_vec()).collect()
            }
            Form::I32 => {
                let lies =
                    [Some(i32::MAX), Some(i32::MIN), Some(-2), Some(beyond as i32), null.then_some(-1)];
                lies.into_iter().flatten().map(|lie| lie.to_be_bytes().to_vec()).collect()
            }
            Form::Compact | Form::Plain => {
                let null = null && self.form == Form::Compact;
                let lies = [Some(u32::MAX), Some(1 << 31), Some(beyond + 1), null.then_some(0)];
                let mut lies: Vec<_> = lies.into_iter().flatten().map(varint).collect();
                // Six bytes, and five with more than 32 bits.
                lies.push(vec![0x81, 0x80, 0x80, 0x80, 0x80, 0x00]);
                lies.push(vec![0xff, 0xff, 0xff, 0xff, 0x7f]);
                lies
            }
        }
    }
}

struct Pen<'a> {
    sample: Sample,
    version: i16,
    flexible: bool,
    fill: Fill,
    random: &'a mut dyn FnMut() -> u64,
}

impl Pen<'_> {
    fn fields(&mut self, fields: &'static [Field]) {
        let version = self.version;
        let mut here = fields.iter().filter(|field| field.is_in(version));
        for field in here.by_ref().filter(|field| field.tag.is_none()) {
            self.field(field);
        }
        if !self.flexible {
            return;
        }
        let tagged = fields.iter().filter(|field| field.is_in(version));
        let mut tagged: Vec<_> = tagged.filter_map(|field| Some((field.tag?, field))).collect();
        tagged.retain(|_| match self.fill {
            Fill::Least => false,
            Fill::Random => (self.random)().is_multiple_of(2),
            Fill::Most | Fill::Foreign => true,
        });
        let foreign = self.fill == Fill::Foreign;
        self.length("(tagged fields)", Form::Plain, tagged.len() + usize::from(foreign), false);
        for (tag, field) in tagged {
            self.sample.body.extend(varint(tag));
            // The content is written first and its size put in front; lengths inside it move along.
            let mark = (self.sample.body.len(), self.sample.lengths.len());
            // Never null, false or empty: a field that says what its absence says is not written.
            let fill = std::mem::replace(&mut self.fill, if foreign { Fill::Foreign } else { Fill::Most });
            match field.kind {
                Kind::Bool => self.sample.body.push(1),
                kind => self.value(field.name, kind, field.may_be_null(version), false),
            }
            self.fill = fill;
            let content = self.sample.body.split_off(mark.0);
            let inner = self.sample.lengths.split_off(mark.1);
            self.length(field.name, Form::Plain, content.len(), false);
            let moved = self.sample.body.len() - mark.0;
            self.sample.lengths.extend(inner.into_iter().map(|l| Length { at: l.at + moved, ..l }));
            self.sample.body.extend(content);
        }
        if foreign {
            self.sample.body.extend(varint(9999));
            self.length("(foreign)", Form::Plain, 3, false);
            self.sample.body.extend(b"\xde\xad\x01");
        }
    }

    fn field(&mut self, field: &Field) {
        let may_be_null = field.may_be_null(self.version);
        let null = may_be_null
            && match self.fill {
                Fill::Least => true,
                Fill::Random => (self.random)().is_multiple_of(4),
                Fill::Most | Fill::Foreign => false,
            };
        self.value(field.name, field.kind, may_be_null, null);
    }

    fn value(&mut self, name: &'static str, kind: Kind, may_be_null: bool, null: bool) {
        match kind {
            // Only 0 and 1, which every codec writes back as it read them.
            Kind::Bool => {
                let value = (self.random)() as u8 & 1;
                self.sample.body.push(value);
            }
            Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 | Kind::Uuid => {
                for _ in 0..kind.bytes_min(self.version, self.flexible) {
                    let byte = (self.random)() as u8;
                    self.sample.body.push(byte);
                }
            }
            Kind::Str => {
                let length = (!null).then(|| self.count(9));
                self.nullable_length(
                    name,
                    if self.flexible { Form::Compact } else { Form::I16 },
                    length,
                    may_be_null,
                );
                for _ in 0..length.unwrap_or(0) {
                    let letter = b'a' + ((self.random)() % 26) as u8;
                    self.sample.body.push(letter);
                }
            }
            Kind::Bytes | Kind::Records => {
                let length = (!null).then(|| self.count(40));
                self.nullable_length(name, self.long_form(), length, may_be_null);
                for _ in 0..length.unwrap_or(0) {
                    let byte = (self.random)() as u8;
                    self.sample.body.push(byte);
                }
            }
            Kind::Array(element) => {
                let count = (!null).then(|| self.count(2));
                self.nullable_length(name, self.long_form(), count, may_be_null);
                (0..count.unwrap_or(0)).for_each(|_| self.value(name, *element, false, false));
            }
            Kind::Struct(fields) => self.fields(fields),
        }
    }

    fn count(&mut self, most: usize) -> usize {
        match self.fill {
            Fill::Least => 0,
            Fill::Most | Fill::Foreign => most,
            Fill::Random => (self.random)() as usize % (most + 2),
        }
    }

    fn long_form(&self) -> Form {
        if self.flexible { Form::Compact } else { Form::I32 }
    }

    fn nullable_length(&mut self, field: &'static str, form: Form, length: Option<usize>, may_be_null: bool) {
        match length {
            Some(length) => self.length(field, form, length, may_be_null),
            None => {
                let null: &[u8] = match form {
                    Form::I16 => &[0xff; 2],
                    Form::I32 => &[0xff; 4],
                    Form::Compact | Form::Plain => &[0],
                };
                self.written(field, form, null, may_be_null);
            }
        }
    }

    fn length(&mut self, field: &'static str, form: Form, length: usize, may_be_null: bool) {
        let bytes = match form {
            Form::I16 => (length as i16).to_be_bytes().to_vec(),
            Form::I32 => (length as i32).to_be_bytes().to_vec(),
            Form::Compact => varint(length as u32 + 1),
            Form::Plain => varint(length as u32),
        };
        self.written(field, form, &bytes, may_be_null);
    }

    fn written(&mut self, field: &'static str, form: Form, bytes: &[u8], may_be_null: bool) {
        let at = self.sample.body.len();
        self.sample.lengths.push(Length { field, at, bytes: bytes.len(), may_be_null, form });
        self.sample.body.extend_from_slice(bytes);
    }
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
