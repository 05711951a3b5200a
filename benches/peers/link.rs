//! The link: loopback, or a script that runs a command on a shore whose only way to the vessel is a bad link.
//!
//! The script is called as `SCRIPT [--rtt MS] [--loss PERCENT] … -- COMMAND` and tells the command the vessel's address and
//! network namespace in `VESSEL_IP` and `VESSEL_NS`. The benchmark itself is that command.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;

use crate::Result;
use crate::stop::Stop;

/// Which link.
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// Measure over a bad link that this script makes: `SCRIPT [--rtt MS] [--loss PERCENT] [--rate MBIT] [--queue KIB]
    /// [--cut-every S --cut-for S] [--cc NAME] -- COMMAND`, with `VESSEL_IP` and the network namespace `VESSEL_NS` in the
    /// command's environment. Default: loopback.
    #[arg(long = "link", value_name = "SCRIPT", help_heading = "Link")]
    pub(crate) script: Option<PathBuf>,
    /// Round trip, milliseconds.
    #[arg(long, value_name = "MS", requires = "script", help_heading = "Link")]
    rtt: Option<f64>,
    /// Packets lost, percent, each way.
    #[arg(long, value_name = "PERCENT", requires = "script", help_heading = "Link")]
    loss: Option<f64>,
    /// Mbit/s.
    #[arg(long, value_name = "MBIT", requires = "script", help_heading = "Link")]
    rate: Option<f64>,
    /// The bottleneck's queue, KiB.
    #[arg(long, value_name = "KIB", requires = "script", help_heading = "Link")]
    queue: Option<u32>,
    /// The link goes down every so many seconds …
    #[arg(long, value_name = "S", requires = "cut_for", help_heading = "Link")]
    cut_every: Option<f64>,
    /// … for so many.
    #[arg(long, value_name = "S", requires = "cut_every", help_heading = "Link")]
    cut_for: Option<f64>,
    /// The congestion control that the route asks for.
    #[arg(long, value_name = "NAME", requires = "script", help_heading = "Link")]
    cc: Option<String>,
}

impl LinkArgs {
    /// What the script is told, and what people read: option, value, unit.
    fn properties(&self) -> Vec<(&'static str, String, &'static str)> {
        let number = |value: Option<f64>| value.map(|value| value.to_string());
        let all = [
            ("--rtt", number(self.rtt), " ms"),
            ("--loss", number(self.loss), " % loss"),
            ("--rate", number(self.rate), " Mbit/s"),
            ("--queue", self.queue.map(|kib| kib.to_string()), " KiB queue"),
            ("--cut-every", number(self.cut_every), " s up"),
            ("--cut-for", number(self.cut_for), " s down"),
            ("--cc", self.cc.clone(), ""),
        ];
        all.into_iter().filter_map(|(option, value, unit)| Some((option, value?, unit))).collect()
    }

    /// The link in words.
    pub(crate) fn words(&self) -> String {
        if self.script.is_none() {
            return "loopback".to_owned();
        }
        let parts: Vec<_> = self.properties().into_iter().map(|(_, value, unit)| format!("{value}{unit}")).collect();
        if parts.is_empty() { "the link script's defaults".to_owned() } else { parts.join(", ") }
    }
}

/// The vessel's end, as the script tells it.
pub(crate) struct Shore {
    /// The vessel's IPv4 address.
    pub(crate) address: String,
    /// The network namespace to start servers in; `None` for this one.
    pub(crate) namespace: Option<String>,
}

impl Shore {
    pub(crate) fn here(inside_link: bool) -> Result<Self> {
        if !inside_link {
            return Ok(Self { address: "127.0.0.1".to_owned(), namespace: None });
        }
        let told = |name: &str| env::var(name).map_err(|_| format!("the link script has not set {name}"));
        Ok(Self { address: told("VESSEL_IP")?, namespace: Some(told("VESSEL_NS")?) })
    }
}

/// Starts this benchmark again on the link's shore, with the same arguments, and waits for it.
///
/// The script's tidying up depends on it living longer than its command, so nothing is killed: the command sees the end of
/// its standard input, when this process ends for whatever reason, and takes everything down itself.
pub(crate) fn reenter(script: &Path, link: &LinkArgs, stop: &Stop) -> Result<ExitCode> {
    let myself = env::current_exe().map_err(|e| format!("this program's own path: {e}"))?;
    let mut command = Command::new(script);
    for (option, value, _) in link.properties() {
        command.arg(option).arg(value);
    }
    command.arg("--").arg(myself).args(env::args_os().skip(1)).arg("--inside-link").stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", script.display()))?;
    let mut input = child.stdin.take();
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        if stop.is_asked() {
            drop(input.take());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
