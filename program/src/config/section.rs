//! Reads a TOML table field by field, and notes each mistake with its place.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The mistakes of a file, with the offsets of their places.
pub(crate) struct Mistakes<'a> {
    name: &'a str,
    text: &'a str,
    list: RefCell<Vec<(usize, String)>>,
}

/// The largest number of mistakes that are shown.
const SHOWN: usize = 10;

impl<'a> Mistakes<'a> {
    /// `name` is the name of the file, and `text` its contents.
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text, list: RefCell::default() }
    }

    pub(crate) fn add(&self, at: Range<usize>, message: impl Into<String>) {
        self.list.borrow_mut().push((at.start, message.into()));
    }

    /// Lines of the form `FILE:LINE:COLUMN: MESSAGE`, in the order of the file.
    pub(crate) fn lines(self) -> Vec<String> {
        let mut list = self.list.into_inner();
        list.sort();
        list.truncate(SHOWN);
        let line = |(offset, message): &(usize, String)| {
            let before = self.text.get(..*offset).unwrap_or(self.text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("{}:{line}:{column}: {message}", self.name)
        };
        list.iter().map(line).collect()
    }
}

/// A table that is being read. Dropping it reports the fields that were not read.
pub(crate) struct Section<'a> {
    /// Its name in messages, such as `[policy]`.
    name: String,
    at: Range<usize>,
    table: &'a DeTable<'a>,
    asked: Vec<&'static str>,
    mistakes: &'a Mistakes<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(crate) fn root(table: &'a Spanned<DeTable<'a>>, mistakes: &'a Mistakes<'a>) -> Self {
        let (name, at, table) = (String::new(), table.span(), table.get_ref());
        Self { name, at, table, asked: Vec::new(), mistakes }
    }

    /// The table `value`; `None` when `value` is not a table.
    fn of(&self, name: String, value: &'a Spanned<DeValue<'a>>) -> Option<Self> {
        let table = value.get_ref().as_table()?;
        Some(Self { name, at: value.span(), table, asked: Vec::new(), mistakes: self.mistakes })
    }

    fn value(&mut self, field: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(field);
        let mut entries = self.table.iter();
        entries.find(|(name, _)| name.get_ref() == field).map(|(_, value)| value)
    }

    fn wrong(&self, value: &Spanned<DeValue<'_>>, field: &str, wanted: &str) {
        let found = value.get_ref().type_str();
        self.mistakes.add(value.span(), format!("`{field}` takes {wanted}, not {found}"));
    }

    /// Reads a string into `place` with `parse`.
    pub(crate) fn text<T>(
        &mut self,
        field: &'static str,
        place: &mut T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) {
        let Some(value) = self.value(field) else { return };
        match value.get_ref().as_str().map(parse) {
            Some(Ok(read)) => *place = read,
            Some(Err(message)) => self.mistakes.add(value.span(), message),
            None => self.wrong(value, field, "a string"),
        }
    }

    pub(crate) fn flag(&mut self, field: &'static str, place: &mut bool) {
        let Some(value) = self.value(field) else { return };
        match value.get_ref().as_bool() {
            Some(read) => *place = read,
            None => self.wrong(value, field, "true or false"),
        }
    }

    /// Reads a number that is at least `least`.
    pub(crate) fn number(&mut self, field: &'static str, place: &mut u32, least: u32) {
        let Some(value) = self.value(field) else { return };
        let number = value.get_ref().as_integer();
        match number.and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok()) {
            Some(read) if read >= least => *place = read,
            _ => {
                let text = format!("`{field}` takes a number from {least} to {}", u32::MAX);
                self.mistakes.add(value.span(), text);
            }
        }
    }

    /// Reads a list of strings; `None` when the field is absent.
    pub(crate) fn texts<T>(
        &mut self,
        field: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.value(field)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong(value, field, "a list of strings");
            return None;
        };
        let mut read = Vec::new();
        for member in list.iter() {
            match member.get_ref().as_str().map(&parse) {
                Some(Ok(one)) => read.push(one),
                Some(Err(message)) => self.mistakes.add(member.span(), message),
                None => self.wrong(member, field, "a list of strings"),
            }
        }
        Some(read)
    }

    /// Like [`texts`](Self::texts), but refuses an empty list.
    pub(crate) fn some_texts<T>(
        &mut self,
        field: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let read = self.texts(field, parse)?;
        let value = self.value(field)?;
        if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
            let text = format!("`{field}` is empty; leave it out for the default");
            self.mistakes.add(value.span(), text);
        }
        Some(read)
    }

    /// The table of this name, to be read by the caller.
    pub(crate) fn section(&mut self, field: &'static str) -> Option<Section<'a>> {
        let value = self.value(field)?;
        let section = self.of(format!("[{field}]"), value);
        if section.is_none() {
            self.wrong(value, field, "a table");
        }
        section
    }

    /// The tables of this name, to be read by the caller.
    pub(crate) fn sections(&mut self, field: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.value(field) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            self.wrong(value, field, "tables, each under [[route]]");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for member in list.iter() {
            match self.of(format!("[[{field}]]"), member) {
                Some(section) => sections.push(section),
                None => self.wrong(member, field, "tables, each under [[route]]"),
            }
        }
        sections
    }

    /// Passes each entry of a table with arbitrary names to `each`.
    pub(crate) fn entries(
        &mut self,
        field: &'static str,
        mut each: impl FnMut(&str, &str) -> Result<(), String>,
    ) {
        let Some(value) = self.value(field) else { return };
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong(value, field, "a table");
        };
        for (name, value) in table {
            match value.get_ref().as_str().map(|text| each(name.get_ref(), text)) {
                Some(Ok(())) => {}
                Some(Err(message)) => self.mistakes.add(name.span(), message),
                None => self.wrong(value, name.get_ref(), "a string"),
            }
        }
    }

    /// Notes a mistake of the whole table.
    pub(crate) fn note(&self, message: String) {
        self.mistakes.add(self.at.clone(), message);
    }

    /// Notes a mistake when the field is missing.
    pub(crate) fn require(&self, field: &str) {
        if !self.table.keys().any(|name| name.get_ref() == field) {
            self.mistakes.add(self.at.clone(), format!("{} needs `{field}`", self.name));
        }
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        for (name, _) in self.table {
            if self.asked.iter().any(|asked| asked == name.get_ref()) {
                continue;
            }
            let mut message = format!("unknown field `{}`", name.get_ref());
            if !self.name.is_empty() {
                message.push_str(&format!(" in {}", self.name));
            }
            if let Some(meant) = nearest(name.get_ref(), &self.asked) {
                message.push_str(&format!("; did you mean `{meant}`?"));
            }
            self.mistakes.add(name.span(), message);
        }
    }
}

/// The known name that is spelled most like `name`.
fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let distance = |known: &&&str| strsim::damerau_levenshtein(known, name);
    let best = known.iter().min_by_key(distance)?;
    (strsim::damerau_levenshtein(best, name) <= 1 + name.len() / 4).then_some(best)
}
