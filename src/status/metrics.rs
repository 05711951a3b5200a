//! Converts the status document to metrics in OpenMetrics 1.0, a text format that Prometheus reads.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::Histogram;
use super::document::{
    BudgetStatus, DirectoryStatus, DiskStatus, Document, LinkBytes, LinkState, QueueStatus, ShoreStatus, VesselStatus,
    WayStatus,
};

/// The content type of the response to a scrape.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns all metrics as text.
pub(super) fn text(document: Arc<Document>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("contentmonster");
    registry.register_collector(Box::new(Shown(document)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Shown(Arc<Document>);

impl Collector for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.program(&mut out)?;
        self.vessels(&mut out)?;
        self.directories(&mut out)
    }
}

/// Names and values of the labels of one series.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// A writer of metric families.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, series, |mut one, value| one.encode_gauge(&value))
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, series, |mut one, value| {
            one.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>)
        })
    }

    fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, &'a Histogram)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, series, |mut one, took: &Histogram| {
            let end = |(end, count): &(Option<f64>, u64)| (end.unwrap_or(f64::INFINITY), *count);
            let buckets: Vec<_> = took.buckets.iter().map(end).collect();
            one.encode_histogram::<NoLabelSet>(took.sum, took.count, &buckets, None)
        })
    }

    fn family<'a, V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: impl IntoIterator<Item = (Labels<'a>, V)>,
        encode: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        series.into_iter().try_for_each(|(labels, value)| encode(family.encode_family(&labels)?, value))
    }
}

impl Shown {
    fn program(&self, out: &mut Out<'_>) -> fmt::Result {
        let ready = self.0.daemon.as_ref().is_some_and(|daemon| daemon.ready);
        let started = self.0.daemon.as_ref().map_or(0, |daemon| daemon.started.as_second().cast_unsigned());
        out.gauges("ready", "1: the initial scan of the directories is complete", [(vec![], u64::from(ready))])?;
        out.gauges("start_time_seconds", "Start time of the program, seconds since 1970", [(vec![], started)])?;
        let available = u64::from(self.0.ledger.trouble.is_none());
        out.gauges("ledger_available", "1: the ledger can be read and written", [(vec![], available)])?;
        out.gauges("ledger_bytes", "Size of the ledger", [(vec![], self.0.ledger.bytes)])?;
        out.gauges("ledger_free_bytes", "Unused bytes in the ledger", [(vec![], self.0.ledger.free_bytes)])?;
        let shores = |value: fn(&ShoreStatus) -> u64| {
            self.0.shores.iter().map(move |shore| (vec![("shore", shore.name.as_str())], value(shore)))
        };
        if !self.0.shores.is_empty() {
            out.gauges("shore_vessels", "Vessels that a shore serves", shores(|shore| shore.vessels.len() as u64))?;
            out.gauges(
                "shore_directories",
                "Directories that a shore serves",
                shores(|shore| shore.directories.len() as u64),
            )?;
            out.gauges(
                "shore_lease_milliseconds",
                "How long the lease of a shore lasts unless it is renewed",
                shores(|shore| shore.lease_ms.max(0).cast_unsigned()),
            )?;
            out.gauges(
                "shore_database_microseconds",
                "How long the last renewal of the lease of a shore took",
                shores(|shore| shore.latency_us.unwrap_or_default().max(0).cast_unsigned()),
            )?;
        }
        let disks = |value: fn(&DiskStatus) -> u64| {
            self.0.disks.iter().map(move |disk| (vec![("path", disk.path.as_str())], value(disk)))
        };
        out.gauges("disk_free_bytes", "Free space on a disk of the shore", disks(|disk| disk.free_bytes))?;
        out.gauges(
            "disk_low",
            "1: a disk of the shore has less free space than MinFree",
            disks(|disk| u64::from(disk.low)),
        )
    }

    fn vessels(&self, out: &mut Out<'_>) -> fmt::Result {
        let each = |value: fn(&VesselStatus) -> u64| {
            self.0.vessels.iter().map(move |vessel| (vec![("vessel", vessel.name.as_str())], value(vessel)))
        };
        out.gauges(
            "vessel_connected",
            "1: the vessel is connected",
            each(|v| u64::from(v.link.state == LinkState::Connected)),
        )?;
        out.gauges("vessel_paused", "1: the vessel is paused", each(|v| u64::from(v.link.state == LinkState::Paused)))?;
        out.gauges("backlog_files", "Files that wait for a vessel", each(|v| v.backlog.files))?;
        out.gauges("backlog_bytes", "Bytes of the files that wait for a vessel", each(|v| v.backlog.bytes))?;
        out.gauges("parked_files", "Files that are parked for a vessel", each(|v| v.parked))?;
        out.counters("expired_files", "Expired deliveries to a vessel, in total", each(|v| v.expired))?;
        out.gauges("window_open", "1: the vessel's Schedule is open", each(|v| u64::from(v.opens.is_none())))?;
        out.gauges(
            "window_opens_seconds",
            "Time when the window of a vessel opens, seconds since 1970; 0 while it is open",
            each(|v| v.opens.map_or(0, |at| at.as_second().cast_unsigned())),
        )?;
        out.gauges("queue_files", "Files waiting for a vessel, by priority", self.queues(|queue| queue.waiting.files))?;
        out.gauges(
            "queue_closed_files",
            "Files for a vessel that wait until a window opens, by priority",
            self.queues(|queue| if queue.opens.is_some() { queue.waiting.files } else { 0 }),
        )?;
        out.gauges(
            "queue_held_files",
            "Files for a vessel that a schedule, a budget or a link holds back, by priority",
            self.queues(|queue| if queue.held.is_some() { queue.waiting.files } else { 0 }),
        )?;
        out.gauges("in_flight_files", "Deliveries in progress to a vessel", each(|v| v.in_flight))?;
        out.gauges(
            "in_flight_bytes",
            "Bytes of the deliveries in progress that a vessel already has",
            each(|v| v.in_flight_bytes),
        )?;
        out.gauges("rate_bytes_per_second", "Bytes per second sent to a vessel", each(|v| v.rate))?;
        out.gauges("lag_seconds", "Seconds that the oldest file has waited for a vessel", self.lags())?;
        out.gauges(
            "last_acknowledged_seconds",
            "Time of the last acknowledgement of a vessel, seconds since 1970",
            each(|v| v.last_acknowledged.map_or(0, |at| at.as_second().cast_unsigned())),
        )?;
        out.counters(
            "acknowledged_files",
            "Files that a vessel acknowledged, in total",
            each(|v| v.acknowledged.files),
        )?;
        out.counters(
            "acknowledged_bytes",
            "Bytes of the files that a vessel acknowledged, in total",
            each(|v| v.acknowledged.bytes),
        )?;
        out.counters(
            "sent_bytes",
            "Bytes of files sent to a vessel since the start of the program",
            each(|v| v.sent_bytes),
        )?;
        out.counters(
            "saved_bytes",
            "Bytes of files that a vessel moved or copied, instead of receiving them, since the start of the program",
            each(|v| v.saved_bytes),
        )?;
        out.counters(
            "link_sent_bytes",
            "Bytes sent on the link to a vessel since the start of the program, with resent bytes and estimated headers",
            self.on_the_link(|bytes| bytes.sent),
        )?;
        out.counters(
            "link_received_bytes",
            "Bytes received on the link from a vessel since the start of the program, with estimated headers",
            self.on_the_link(|bytes| bytes.received),
        )?;
        out.counters(
            "link_resent_bytes",
            "Bytes that TCP sent again on the link to a vessel since the start of the program",
            self.on_the_link(|bytes| bytes.resent),
        )?;
        out.gauges(
            "way_carries",
            "1: the connection to the vessel uses this way",
            self.ways(|way| u64::from(way.carries)),
        )?;
        out.gauges("way_bytes_today", "Bytes on a way to a vessel today (UTC)", self.ways(|way| way.bytes_today))?;
        out.gauges("way_bytes_month", "Bytes on a way to a vessel this month (UTC)", self.ways(|way| way.bytes_month))?;
        out.gauges(
            "way_cost_month_hundredths",
            "Cost of the bytes on a way to a vessel this month, in hundredths of the currency's unit",
            self.ways(|way| (way.cost_month * 100.0).round() as u64),
        )?;
        let failures = self.0.hooks.iter().map(|hook| (vec![("hook", hook.name.as_str())], hook.failures));
        out.counters("hook_failures", "Failures of commands, webhooks and the heartbeat", failures)?;
        let failing =
            self.0.hooks.iter().map(|hook| (vec![("hook", hook.name.as_str())], u64::from(hook.failing.is_some())));
        out.gauges("hook_failing", "Whether the last use of a command, a webhook or the heartbeat failed", failing)?;
        let paused = self.0.directories.iter();
        let paused = paused.map(|one| (vec![("directory", one.name.as_str())], u64::from(one.pause.is_some())));
        out.gauges("directory_paused", "Whether a directory is paused", paused)?;
        out.gauges("budget_bytes", "Size of a budget for bytes on a link", self.budgets(|budget| budget.bytes))?;
        out.gauges(
            "budget_used_bytes",
            "Bytes on the link in the current period of a budget",
            self.budgets(|budget| budget.used),
        )?;
        out.counters("errors", "Errors since the start of the program, by kind", self.errors())?;
        let took = self.0.vessels.iter().map(|vessel| (vec![("vessel", vessel.name.as_str())], &vessel.took));
        out.histograms("delivery_duration_seconds", "Duration of deliveries in seconds", took)
    }

    fn directories(&self, out: &mut Out<'_>) -> fmt::Result {
        let each = |value: fn(&DirectoryStatus) -> u64| {
            self.0.directories.iter().map(move |one| (vec![("directory", one.name.as_str())], value(one)))
        };
        out.gauges("directory_waiting_files", "Files that wait for at least one vessel", each(|d| d.waiting.files))?;
        out.gauges(
            "directory_waiting_bytes",
            "Bytes of the files that wait for at least one vessel",
            each(|d| d.waiting.bytes),
        )?;
        out.gauges("directory_in_flight_files", "Deliveries of a directory in progress", each(|d| d.in_flight))?;
        out.gauges("directory_parked_files", "Parked deliveries of a directory", each(|d| d.parked))?;
        out.counters("directory_expired_files", "Expired deliveries of a directory, in total", each(|d| d.expired))?;
        out.gauges("directory_retired_today_files", "Files retired since midnight", each(|d| d.retired_today.files))?;
        out.gauges(
            "directory_retired_today_bytes",
            "Bytes of the files retired since midnight",
            each(|d| d.retired_today.bytes),
        )?;
        out.gauges(
            "directory_trouble",
            "1: the directory, or a file in it, cannot be used",
            each(|d| u64::from(d.trouble.is_some())),
        )
    }

    /// Returns the sums over the queues of each vessel and priority.
    fn queues(&self, value: fn(&QueueStatus) -> u64) -> impl Iterator<Item = (Labels<'_>, u64)> {
        self.0.vessels.iter().flat_map(move |vessel| {
            let mut sums: Vec<(Labels<'_>, u64)> = Vec::new();
            for queue in &vessel.queues {
                let labels = vec![("vessel", vessel.name.as_str()), ("priority", queue.priority.as_str())];
                match sums.iter_mut().find(|(known, _)| *known == labels) {
                    Some((_, sum)) => *sum += value(queue),
                    None => sums.push((labels, value(queue))),
                }
            }
            sums
        })
    }

    fn lags(&self) -> impl Iterator<Item = (Labels<'_>, u64)> {
        self.0.vessels.iter().map(|vessel| {
            let lag = vessel.oldest.as_ref().map_or(0, |oldest| self.0.at.as_second() - oldest.since.as_second());
            (vec![("vessel", vessel.name.as_str())], lag.max(0).cast_unsigned())
        })
    }

    fn ways(&self, value: fn(&WayStatus) -> u64) -> impl Iterator<Item = (Labels<'_>, u64)> {
        let ways = self.0.vessels.iter().flat_map(|vessel| vessel.ways.iter().map(move |way| (vessel, way)));
        ways.map(move |(vessel, way)| (vec![("vessel", vessel.name.as_str()), ("way", way.name.as_str())], value(way)))
    }

    fn budgets(&self, value: fn(&BudgetStatus) -> u64) -> impl Iterator<Item = (Labels<'_>, u64)> {
        self.0.budgets.iter().map(move |budget| {
            let labels =
                vec![("of", budget.of.as_str()), ("name", budget.name.as_str()), ("period", budget.period.as_str())];
            (labels, value(budget))
        })
    }

    /// Returns the series of the vessels whose bytes on the link are counted.
    fn on_the_link(&self, value: fn(&LinkBytes) -> u64) -> impl Iterator<Item = (Labels<'_>, u64)> {
        let counted = self.0.vessels.iter().filter_map(|vessel| Some((vessel, vessel.link_bytes.as_ref()?)));
        counted.map(move |(vessel, bytes)| (vec![("vessel", vessel.name.as_str())], value(bytes)))
    }

    fn errors(&self) -> impl Iterator<Item = (Labels<'_>, u64)> {
        self.0.vessels.iter().flat_map(|vessel| {
            let labels = |kind| vec![("vessel", vessel.name.as_str()), ("kind", kind)];
            vessel.errors.iter().map(move |(kind, count)| (labels(kind.as_str()), *count))
        })
    }
}
