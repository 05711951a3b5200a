//! Reads Poni's configuration from YAML, and reports all errors in it with their lines.

use std::collections::BTreeMap;
use std::fmt;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use crate::settings::nearest;

/// The valid keys at the top level of the file. [`KEYS`] has the valid keys of a sync and of `defaults`.
const TOP: [&str; 4] = ["log", "log_path", "defaults", "sync"];
/// The keys of the mapping `log`.
const LOG_KEYS: [&str; 2] = ["destination", "level"];
/// The built-in defaults of `interval` (in seconds) and `simulate` that Poni documents. In another place Poni's
/// documentation says 3 seconds, but its code waits 10.
const INTERVAL: u32 = 10;
const SIMULATE: bool = true;
const KEYS: [&str; 11] = [
    "source_path",
    "remote_host",
    "remote_path",
    "remote_user",
    "priv_key",
    "port",
    "rsync_opts",
    "interval",
    "recurse",
    "simulate",
    "delete_on_remote",
];

/// An error in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diagnostic {
    /// The line in the configuration, counted from 1.
    pub(super) line: usize,
    pub(super) what: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// A whole configuration of Poni.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// The path of Poni's log file; `None` when Poni logs to standard output.
    pub(super) log: Option<String>,
    /// The level of Poni's log, as a value of `LogLevel`.
    pub(super) level: Option<&'static str>,
    pub(super) syncs: Vec<Sync>,
}

/// One sync of Poni, with missing values taken from `defaults` and from Poni's built-in defaults.
#[derive(Clone, Debug)]
pub(super) struct Sync {
    pub(super) name: String,
    pub(super) source: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) user: Option<String>,
    pub(super) key: Option<String>,
    pub(super) port: u16,
    pub(super) flags: String,
    pub(super) interval: u32,
    pub(super) recurse: bool,
    pub(super) simulate: bool,
    pub(super) delete: bool,
    /// The keys whose values are Poni's built-in defaults.
    pub(super) by_default: Vec<&'static str>,
}

impl Sync {
    /// Returns whether Poni runs `rsync` without SSH for this sync.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.host.as_str(), "localhost" | "127.0.0.1")
    }
}

/// A value in the configuration, and its line.
#[derive(Clone, Debug)]
struct Value {
    text: String,
    line: usize,
}

type Values = BTreeMap<&'static str, Value>;

/// Reads a configuration, or returns all errors in it.
pub(super) fn read(text: &str) -> Result<Config, Vec<Diagnostic>> {
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|e| vec![Diagnostic { line: e.marker().line(), what: format!("invalid YAML: {}", e.info()) }])?;
    let mut reader = Reader::default();
    let config = documents.first().and_then(|document| reader.config(document));
    match config {
        Some(config) if reader.diagnostics.is_empty() => Ok(config),
        _ => {
            reader.diagnostics.sort_by_key(|diagnostic| diagnostic.line);
            Err(reader.diagnostics)
        }
    }
}

#[derive(Default)]
struct Reader {
    diagnostics: Vec<Diagnostic>,
}

impl Reader {
    fn report(&mut self, line: usize, what: impl fmt::Display) {
        self.diagnostics.push(Diagnostic { line, what: what.to_string() });
    }

    fn config(&mut self, document: &MarkedYaml<'_>) -> Option<Config> {
        let top = self.mapping(document, "the file")?;
        let mut config = Config::default();
        let mut defaults = Values::new();
        let mut syncs = None;
        for (key, line, node) in top {
            match self.known(&key, line, &TOP, "at the top level") {
                Some("log") if matches!(node.data, YamlData::Mapping(_)) => self.log(node, &mut config),
                Some("log" | "log_path") => {
                    config.log = self.scalar(node, &key).map(|log| log.text).filter(|log| !is_stdout(log));
                }
                Some("defaults") => defaults = self.values(node, "defaults"),
                Some("sync") => syncs = self.mapping(node, "sync"),
                _ => {}
            }
        }
        let Some(syncs) = syncs else {
            self.report(document.span.start.line(), "there is no `sync`, so there is nothing to import");
            return None;
        };
        for (name, line, node) in syncs {
            let own = self.values(node, &format!("sync {name:?}"));
            config.syncs.extend(self.sync(name, line, &own, &defaults));
        }
        Some(config)
    }

    /// Reads the mapping `log`: `destination` and `level`.
    fn log(&mut self, node: &MarkedYaml<'_>, config: &mut Config) {
        for (key, line, node) in self.mapping(node, "log").unwrap_or_default() {
            match self.known(&key, line, &LOG_KEYS, "in log") {
                Some("destination") => {
                    config.log = self.scalar(node, &key).map(|log| log.text).filter(|log| !is_stdout(log));
                }
                Some(_) => {
                    let Some(Value { text, line }) = self.scalar(node, &key) else { continue };
                    config.level = match text.to_lowercase().as_str() {
                        "debug" => Some("debug"),
                        "info" => Some("info"),
                        "warning" | "warn" => Some("warn"),
                        "error" => Some("error"),
                        _ => {
                            self.report(
                                line,
                                format_args!("invalid level: `{text}`; expected debug, info, warning or error"),
                            );
                            None
                        }
                    };
                }
                None => {}
            }
        }
    }

    /// Reads the values of a sync or of `defaults`; `[]` and null have no values.
    fn values(&mut self, node: &MarkedYaml<'_>, what: &str) -> Values {
        let is_empty = match &node.data {
            YamlData::Sequence(sequence) => sequence.is_empty(),
            YamlData::Value(Scalar::Null) => true,
            _ => false,
        };
        if is_empty {
            return Values::new();
        }
        let entries = self.mapping(node, what).unwrap_or_default();
        let mut values = Values::new();
        for (key, line, node) in entries {
            if let Some(key) = self.known(&key, line, &KEYS, &format!("in {what}"))
                && let Some(value) = self.scalar(node, key)
            {
                values.insert(key, value);
            }
        }
        values
    }

    fn known(&mut self, key: &str, line: usize, known: &[&'static str], at: &str) -> Option<&'static str> {
        let found = known.iter().copied().find(|known| *known == key);
        if found.is_none() {
            let remedy = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}? Poni ignores unknown keys"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.report(line, format_args!("unknown key {key:?} {at}; {remedy}"));
        }
        found
    }

    fn mapping<'a, 'input>(
        &mut self,
        node: &'a MarkedYaml<'input>,
        what: &str,
    ) -> Option<Vec<(String, usize, &'a MarkedYaml<'input>)>> {
        let YamlData::Mapping(mapping) = &node.data else {
            self.report(
                node.span.start.line(),
                format_args!("invalid content of {what}; expected a mapping of keys to values"),
            );
            return None;
        };
        let entry = |(key, value): (&'a MarkedYaml<'input>, &'a MarkedYaml<'input>)| {
            let key = self.scalar(key, "key")?;
            Some((key.text, key.line, value))
        };
        Some(mapping.iter().filter_map(entry).collect())
    }

    fn scalar(&mut self, node: &MarkedYaml<'_>, what: &str) -> Option<Value> {
        let line = node.span.start.line();
        let text = match &node.data {
            YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
            YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
            YamlData::Value(Scalar::Boolean(yes)) => Some(yes.to_string()),
            YamlData::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
            _ => None,
        };
        match text.filter(|text| !text.is_empty() && !text.contains(['\n', '\r'])) {
            Some(text) => Some(Value { text, line }),
            None => {
                self.report(
                    line,
                    format_args!("invalid {what}; expected a word, a number, or true or false, on one line"),
                );
                None
            }
        }
    }

    fn sync(&mut self, name: String, line: usize, own: &Values, defaults: &Values) -> Option<Sync> {
        let value = |key: &str| own.get(key).or_else(|| defaults.get(key));
        let diagnostics = self.diagnostics.len();
        // In older versions of Poni, the name of a sync is its source path.
        let source = own.get("source_path").map(|source| source.text.clone());
        let source = source.or_else(|| name.starts_with('/').then(|| name.clone()));
        let source = source.or_else(|| defaults.get("source_path").map(|source| source.text.clone()));
        let mut needed = |key: &str, found: Option<String>| {
            if found.is_none() {
                self.report(line, format_args!("sync {name:?} has no {key}, and the defaults do not set it"));
            }
            found.unwrap_or_default()
        };
        let text = |key: &str| value(key).map(|value| value.text.clone());
        let source = needed("source_path", source);
        let (host, path) = (needed("remote_host", text("remote_host")), needed("remote_path", text("remote_path")));
        if !source.is_empty() && !source.starts_with('/') {
            self.report(
                line,
                format_args!("source_path {source:?} is not absolute, and the working directory of Poni is unknown"),
            );
        }
        if let Some(Value { text, line }) = value("priv_key").filter(|key| key.text.contains(',')) {
            self.report(
                *line,
                format_args!("priv_key {text:?} contains a comma, which separates files in settings; rename the file"),
            );
        }
        let sync = Sync {
            source,
            host,
            path,
            user: text("remote_user"),
            key: text("priv_key"),
            port: self.number(value("port"), "port", 1, 65_535, 22).try_into().unwrap_or(22),
            flags: text("rsync_opts").unwrap_or_else(|| "azP".to_owned()),
            interval: self.number(value("interval"), "interval", 0, 86_400, INTERVAL),
            recurse: self.truth(value("recurse"), "recurse", false),
            simulate: self.truth(value("simulate"), "simulate", SIMULATE),
            delete: self.truth(value("delete_on_remote"), "delete_on_remote", false),
            by_default: ["interval", "simulate"].into_iter().filter(|key| value(key).is_none()).collect(),
            name,
        };
        (self.diagnostics.len() == diagnostics).then_some(sync)
    }

    fn number(&mut self, value: Option<&Value>, key: &str, least: u32, most: u32, otherwise: u32) -> u32 {
        let Some(Value { text, line }) = value else { return otherwise };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => number,
            _ => {
                self.report(*line, format_args!("invalid {key}: `{text}`; expected a number from {least} to {most}"));
                otherwise
            }
        }
    }

    fn truth(&mut self, value: Option<&Value>, key: &str, otherwise: bool) -> bool {
        let Some(Value { text, line }) = value else { return otherwise };
        if text != "true" && text != "false" {
            self.report(*line, format_args!("invalid {key}: `{text}`; expected true or false"));
        }
        text == "true"
    }
}

fn is_stdout(destination: &str) -> bool {
    destination.eq_ignore_ascii_case("stdout")
}
