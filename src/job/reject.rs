//! Why an entry can't be a job, in words that stay the same.

/// Why an entry can't be a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The class of the fault.
    pub code: RejectCode,
    /// What is wrong, naming the field.
    pub message: String,
}

impl Reject {
    /// A reason with its class.
    #[must_use]
    pub fn new(code: RejectCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

/// Classes of faults, stable words for reports and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectCode {
    /// Not JSON, not an object, a duplicate key, a wrong type, a value out of range.
    Malformed,
    /// Larger than allowed.
    TooLarge,
    /// A field this version does not know.
    UnknownField,
    /// An envelope version this daemon does not speak.
    UnknownVersion,
    /// No definition of that name here.
    UnknownKind,
    /// The arguments do not fit the definition.
    BadArgs,
    /// The envelope names another queue than its inbox.
    WrongQueue,
}

impl RejectCode {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::UnknownField => "unknown_field",
            Self::UnknownVersion => "unknown_version",
            Self::UnknownKind => "unknown_kind",
            Self::BadArgs => "bad_args",
            Self::WrongQueue => "wrong_queue",
        }
    }

    /// Whether another daemon, or this one after an upgrade or a reload, may know better.
    #[must_use]
    pub const fn may_heal(self) -> bool {
        matches!(
            self,
            Self::UnknownField | Self::UnknownVersion | Self::UnknownKind
        )
    }
}
