//! Bytes as text and back: hexadecimal and base64 (RFC 4648), as the format strings name them.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// How a field's bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As they are.
    Plain,
    Hex,
    Base64,
    /// Base64 without padding.
    Base64Raw,
}

impl Encoding {
    /// Reads a modifier's name.
    pub(crate) fn named(name: &str) -> Option<Encoding> {
        match name {
            "hex" => Some(Encoding::Hex),
            "base64" => Some(Encoding::Base64),
            "base64raw" => Some(Encoding::Base64Raw),
            _ => None,
        }
    }

    pub(crate) fn encode(self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Encoding::Plain => out.extend_from_slice(bytes),
            Encoding::Hex => {
                for byte in bytes {
                    out.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
                }
            }
            Encoding::Base64 | Encoding::Base64Raw => encode_base64(bytes, self == Encoding::Base64, out),
        }
    }

    pub(crate) fn decode(self, text: &[u8]) -> Result<Vec<u8>, String> {
        let decoded = match self {
            Encoding::Plain => Some(text.to_vec()),
            Encoding::Hex => decode_hex(text),
            Encoding::Base64 | Encoding::Base64Raw => decode_base64(text),
        };
        decoded.ok_or_else(|| {
            let name = if self == Encoding::Hex { "hexadecimal" } else { "base64" };
            format!("{:?} is not {name}", String::from_utf8_lossy(text))
        })
    }
}

fn encode_base64(bytes: &[u8], padded: bool, out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(word);
        for nth in 0..4 {
            if nth <= group.len() {
                out.push(ALPHABET[(bits >> (18 - 6 * nth)) as usize & 63]);
            } else if padded {
                out.push(b'=');
            }
        }
    }
}

fn decode_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Takes both alphabets of padding, present or not.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let unpadded = text.iter().rposition(|byte| *byte != b'=').map_or(&text[..0], |last| &text[..=last]);
    if text.len() - unpadded.len() > 2 || unpadded.len() % 4 == 1 {
        return None;
    }
    let mut decoded = Vec::with_capacity(unpadded.len() / 4 * 3 + 2);
    for group in unpadded.chunks(4) {
        let mut bits: u32 = 0;
        for byte in group {
            let digit = ALPHABET.iter().position(|letter| letter == byte)?;
            bits = bits << 6 | u32::try_from(digit).ok()?;
        }
        bits <<= 6 * (4 - group.len());
        decoded.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(encoding: Encoding, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        encoding.encode(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_answers() {
        assert_eq!(encode(Encoding::Hex, b"\x00\xffA"), "00ff41");
        let known = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (bytes, text) in known {
            assert_eq!(encode(Encoding::Base64, bytes.as_bytes()), text);
            assert_eq!(encode(Encoding::Base64Raw, bytes.as_bytes()), text.trim_end_matches('='));
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for length in 0..70u8 {
            let bytes: Vec<u8> = (0..length).map(|nth| nth.wrapping_mul(37) ^ length).collect();
            for encoding in [Encoding::Plain, Encoding::Hex, Encoding::Base64, Encoding::Base64Raw] {
                let mut text = Vec::new();
                encoding.encode(&bytes, &mut text);
                assert_eq!(encoding.decode(&text), Ok(bytes.clone()), "{encoding:?} {length}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["0", "0g", "zz"] {
            assert!(Encoding::Hex.decode(wrong.as_bytes()).is_err(), "{wrong}");
        }
        for wrong in ["A", "A===", "Zm9v!", "Zg==="] {
            assert!(Encoding::Base64.decode(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
