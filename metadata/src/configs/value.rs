//! One value: read, checked, shown.

use std::fmt;

use super::definition::{ConfigDef, ConfigType, Rule};

/// A value of its key's type, within its key's rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a boolean key.
    Boolean(bool),
    /// Of an int, short or long key.
    Number(i64),
    /// Of a double key.
    Decimal(f64),
    /// Of a string, class or password key.
    Text(String),
    /// Of a list key.
    List(Vec<String>),
}

/// A value its key does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid value {value} for configuration {key}: {fault}")]
pub struct InvalidValue {
    /// The key.
    pub key: String,
    /// The value as given.
    pub value: String,
    /// What is wrong with it: a sentence without its full stop.
    pub fault: String,
}

impl ConfigDef {
    /// Reads a value as Kafka does (blanks around it do not count) and checks it against the key's type and rule.
    ///
    /// # Errors
    /// What the key takes instead.
    pub fn parse(&self, text: &str) -> Result<Value, InvalidValue> {
        self.read(text.trim())
            .and_then(|value| self.check(&value).map(|()| value))
            .map_err(|fault| InvalidValue { key: self.name.to_owned(), value: text.to_owned(), fault })
    }

    fn read(&self, text: &str) -> Result<Value, String> {
        let number = |least: i64, most: i64| match text.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Value::Number(number)),
            _ => Err(format!("Not a number of type {}", self.kind.name())),
        };
        match self.kind {
            ConfigType::Boolean if text.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
            ConfigType::Boolean if text.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
            ConfigType::Boolean => Err("Expected value to be either true or false".to_owned()),
            ConfigType::Short => number(i16::MIN.into(), i16::MAX.into()),
            ConfigType::Int => number(i32::MIN.into(), i32::MAX.into()),
            ConfigType::Long => number(i64::MIN, i64::MAX),
            ConfigType::Double => match text.parse::<f64>() {
                Ok(decimal) if decimal.is_finite() => Ok(Value::Decimal(decimal)),
                _ => Err(format!("Not a number of type {}", self.kind.name())),
            },
            ConfigType::String | ConfigType::Class | ConfigType::Password => Ok(Value::Text(text.to_owned())),
            ConfigType::List => {
                let mut items = split_list(text);
                if matches!(self.rule, Rule::EachOf(_)) {
                    let mut seen = std::collections::BTreeSet::new();
                    items.retain(|item| seen.insert(item.clone()));
                }
                Ok(Value::List(items))
            }
        }
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        match (self.rule, value) {
            (Rule::AtLeast(least), Value::Number(number)) if *number < least => {
                Err(format!("Value must be at least {least}"))
            }
            (Rule::Between(least, _), Value::Number(number)) if *number < least => {
                Err(format!("Value must be at least {least}"))
            }
            (Rule::Between(_, most), Value::Number(number)) if *number > most => {
                Err(format!("Value must be no more than {most}"))
            }
            (Rule::BetweenOr(least, most, other), Value::Number(number))
                if !(least..=most).contains(number) && *number != other =>
            {
                Err(format!("Value must be between {least} and {most} or equal to {other}"))
            }
            (Rule::Fraction(least, _), Value::Decimal(decimal)) if *decimal < least => {
                Err(format!("Value must be at least {least}"))
            }
            (Rule::Fraction(_, most), Value::Decimal(decimal)) if *decimal > most => {
                Err(format!("Value must be no more than {most}"))
            }
            (Rule::OneOf(allowed), Value::Text(text)) if !allowed.contains(&text.as_str()) => {
                Err(format!("String must be one of: {}", allowed.join(", ")))
            }
            (Rule::EachOf(allowed), Value::List(items)) => {
                match items.iter().find(|item| !allowed.contains(&item.as_str())) {
                    Some(_) => Err(format!("String must be one of: {}", allowed.join(", "))),
                    None => Ok(()),
                }
            }
            (Rule::ThrottledReplicas, Value::List(items)) if !is_throttled_replicas(items) => Err(format!(
                "{} must be the literal '*' or a list of replicas in the following format: \
                 [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                self.name
            )),
            (Rule::Only(only), value) if value.to_string() != only => {
                Err(format!("Only '{only}' is possible in this release"))
            }
            _ => Ok(()),
        }
    }

    /// The default, read. `None` where the key has none.
    pub fn default_value(&self) -> Option<Value> {
        self.default
            .map(|text| self.parse(text).expect("a default keeps its own rule: a test reads every one"))
    }
}

/// The items of a list, as Kafka splits them: blanks around an item do not count, and nothing at all is the empty list.
pub(crate) fn split_list(text: &str) -> Vec<String> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    text.split(',').map(|item| item.trim().to_owned()).collect()
}

fn is_throttled_replicas(items: &[String]) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    items == ["*"]
        || items.iter().all(|item| {
            item.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
        })
}

/// As DescribeConfigs shows it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(boolean) => boolean.fmt(f),
            Value::Number(number) => number.fmt(f),
            // As Java: whole numbers with one decimal, exponents after a capital E.
            Value::Decimal(decimal) => f.write_str(&format!("{decimal:?}").replace('e', "E")),
            Value::Text(text) => f.write_str(text),
            Value::List(items) => f.write_str(&items.join(",")),
        }
    }
}

impl Value {
    pub(crate) fn number(&self) -> i64 {
        match self {
            Value::Number(number) => *number,
            other => panic!("{other} is not a number: the table and its reader disagree"),
        }
    }
}
