//! What one key is.

/// One row of a table of keys.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDef {
    /// The key: Kafka's name where Kafka has it.
    pub name: &'static str,
    /// What its values are.
    pub kind: ConfigType,
    /// The value when nobody sets one; `None` is Kafka's null, "not set".
    pub default: Option<&'static str>,
    /// Which values of its type it takes.
    pub rule: Rule,
    /// When it may change.
    pub mutability: Mutability,
    /// The broker keys it falls back on, first the one that wins. For a topic key: what makes its default; the first
    /// carries its name in Kafka's answers. For a broker key: itself and its siblings in other units.
    pub synonyms: &'static [Synonym],
    /// Whether setting it does something.
    pub effect: Effect,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
}

/// What a value is. The discriminants are Kafka's type bytes in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// A text.
    String = 2,
    /// 32 bits.
    Int = 3,
    /// 16 bits.
    Short = 4,
    /// 64 bits.
    Long = 5,
    /// A decimal number.
    Double = 6,
    /// Texts with commas between them; only lists can be appended to and subtracted from.
    List = 7,
    /// The name of a Java class.
    Class = 8,
    /// A text that is never shown.
    Password = 9,
}

impl ConfigType {
    /// The byte that names the type in a DescribeConfigs answer.
    pub const fn wire_byte(self) -> i8 {
        self as i8
    }

    /// The type's name as Kafka's messages have it.
    pub const fn name(self) -> &'static str {
        match self {
            ConfigType::Boolean => "BOOLEAN",
            ConfigType::String => "STRING",
            ConfigType::Int => "INT",
            ConfigType::Short => "SHORT",
            ConfigType::Long => "LONG",
            ConfigType::Double => "DOUBLE",
            ConfigType::List => "LIST",
            ConfigType::Class => "CLASS",
            ConfigType::Password => "PASSWORD",
        }
    }
}

/// Which values of its type a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// All.
    Any,
    /// Numbers from here on.
    AtLeast(i64),
    /// Numbers in between, both ends included.
    Between(i64, i64),
    /// Numbers in between, both ends included, and one more.
    BetweenOr(i64, i64, i64),
    /// Decimal numbers in between, both ends included.
    Fraction(f64, f64),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A list of these texts, the empty list too. One given twice counts once.
    EachOf(&'static [&'static str]),
    /// `*`, or `partition:broker` pairs.
    ThrottledReplicas,
    /// Only this value: what other values ask for does not exist here.
    Only(&'static str),
}

/// When a value may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutability {
    /// At start only.
    ReadOnly,
    /// While running, one broker at a time.
    PerBroker,
    /// While running, for one broker, or for all.
    ClusterWide,
}

/// A broker key that another key falls back on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker key.
    pub key: &'static str,
    /// What its number counts.
    pub unit: Unit,
}

/// What a synonym's number counts, when the key counts milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The same.
    Same,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Unit {
    /// The number in the unit of the key that falls back on it. Every negative number means -1, "without limit".
    pub fn convert(self, number: i64) -> i64 {
        match self {
            Unit::Same => number,
            Unit::Minutes | Unit::Hours if number < 0 => -1,
            Unit::Minutes => number.saturating_mul(60_000),
            Unit::Hours => number.saturating_mul(3_600_000),
        }
    }
}

/// Whether setting a key does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what its documentation says.
    Works,
    /// It is checked, kept and shown, so that clients and tools written for Kafka keep working, and does nothing.
    Nothing(
        /// Why: a clause that completes "has no effect: ".
        &'static str,
    ),
    /// It shows what a flag of the program decided, and is not set as a key.
    Shown(
        /// The flag.
        &'static str,
    ),
}

impl ConfigDef {
    /// Whether its value is kept from those who ask.
    pub const fn is_sensitive(&self) -> bool {
        matches!(self.kind, ConfigType::Password)
    }

    /// A key that works, takes every value of its type, is read only and falls back on nothing.
    pub(crate) const fn new(name: &'static str, kind: ConfigType, default: &'static str) -> ConfigDef {
        ConfigDef {
            name,
            kind,
            default: Some(default),
            rule: Rule::Any,
            mutability: Mutability::ReadOnly,
            synonyms: &[],
            effect: Effect::Works,
            doc: "",
        }
    }

    pub(crate) const fn doc(self, doc: &'static str) -> ConfigDef {
        ConfigDef { doc, ..self }
    }

    pub(crate) const fn unset(self) -> ConfigDef {
        ConfigDef { default: None, ..self }
    }

    pub(crate) const fn rule(self, rule: Rule) -> ConfigDef {
        ConfigDef { rule, ..self }
    }

    pub(crate) const fn at_least(self, least: i64) -> ConfigDef {
        self.rule(Rule::AtLeast(least))
    }

    pub(crate) const fn dynamic(self) -> ConfigDef {
        ConfigDef { mutability: Mutability::ClusterWide, ..self }
    }

    pub(crate) const fn per_broker(self) -> ConfigDef {
        ConfigDef { mutability: Mutability::PerBroker, ..self }
    }

    pub(crate) const fn synonyms(self, synonyms: &'static [Synonym]) -> ConfigDef {
        ConfigDef { synonyms, ..self }
    }

    pub(crate) const fn without_effect(self, why: &'static str) -> ConfigDef {
        ConfigDef { effect: Effect::Nothing(why), ..self }
    }

    pub(crate) const fn shown(self, flag: &'static str) -> ConfigDef {
        ConfigDef { effect: Effect::Shown(flag), ..self }
    }
}

impl Synonym {
    pub(crate) const fn same(key: &'static str) -> Synonym {
        Synonym { key, unit: Unit::Same }
    }
}
