//! A stretch of the keys in their order.

/// The keys behind `after`, up to and with `through`, in the order of scans (byte by byte). Ranges that begin where another ends have no
/// key in common and leave none out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The key before the first; `None`: from the first key there is.
    pub after: Option<String>,
    /// The last key; `None`: to the last there is.
    pub through: Option<String>,
}

impl KeyRange {
    /// Whether `key` belongs to it.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        let begun = self.after.as_deref().is_none_or(|after| key > after);
        begun && !self.is_behind(key)
    }

    /// Whether `key` lies behind its end.
    fn is_behind(&self, key: &str) -> bool {
        self.through.as_deref().is_some_and(|through| key > through)
    }

    /// Whether there is nothing of it behind `key`.
    #[must_use]
    pub(crate) fn ends_by(&self, key: &str) -> bool {
        self.through.as_deref() == Some(key) || self.is_behind(key)
    }
}
