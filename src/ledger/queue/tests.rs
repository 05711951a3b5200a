//! Compares the merged walk over ranges in memory with the plain list of all deliveries.

use std::time::Duration;

use super::*;
use crate::ledger::LedgerError;

type Result<T> = std::result::Result<T, LedgerError>;

/// A delivery in memory.
#[derive(Clone, Debug)]
struct Item {
    queued: Queued,
    range: RangeOf,
    place: LanePlace,
}

/// A queue in memory.
struct Memory {
    items: Vec<Item>,
    queues: Vec<(DirectoryName, bool)>,
    wanted: Wanted<'static>,
    examined: usize,
}

fn name(number: u8) -> DirectoryName {
    DirectoryName::new(["docs", "maps", "news", "old"][usize::from(number)])
}

impl QueueReader for Memory {
    async fn queues(&mut self) -> Result<Vec<(DirectoryName, bool)>> {
        Ok(self.queues.clone())
    }

    async fn waiting(&mut self, directories: &[DirectoryName]) -> Result<u64> {
        Ok(self.items.iter().filter(|item| directories.contains(&item.queued.directory)).count() as u64)
    }

    async fn examine(&mut self, piece: Piece<'_>) -> Result<Examined> {
        let is_in = |item: &&Item| item.range == *piece.range && item.place > *piece.after;
        let is_due =
            |item: &&Item| matches!(item.place, LanePlace::Ranked(..)) || item.queued.position.due_at <= piece.until;
        let mut range: Vec<&Item> = self.items.iter().filter(is_in).filter(is_due).collect();
        range.sort_by(|a, b| a.place.cmp(&b.place));
        range.truncate(piece.rows);
        self.examined += range.len();
        let last = range.get(piece.rows - 1).map(|item| item.place.clone());
        let found = |item: &&Item| Found { place: item.place.clone(), is_wanted: self.wants(item) };
        let found = range.iter().map(found).filter(|found| found.is_wanted || piece.with_unwanted).take(piece.most);
        Ok(Examined::of(piece, found.collect(), last))
    }

    async fn entries(&mut self, deliveries: &[DeliveryId]) -> Result<Vec<Queued>> {
        let entry = |id: &DeliveryId| self.items.iter().find(|item| item.queued.position.delivery == *id);
        Ok(deliveries.iter().map(|id| entry(id).unwrap().queued.clone()).collect())
    }
}

impl Memory {
    fn wants(&self, item: &Item) -> bool {
        let Wanted { directories, search, never_failed } = &self.wanted;
        directories.as_ref().is_none_or(|names| names.contains(&item.queued.directory))
            && search.is_none_or(|text| item.queued.path.as_bytes().windows(text.len()).any(|part| part == text))
            && (!never_failed || item.queued.failures == 0)
    }

    /// Creates random deliveries in the shared queue, in queues with and without an order, and in the queue `old`,
    /// which some stages do not name.
    fn random(rng: &mut fastrand::Rng) -> Self {
        let (count, is_settled) = (rng.i64(0..60), rng.bool());
        let item = |id: i64| {
            let number = rng.u8(0..4);
            let (directory, large, due_at) = (name(number), rng.u8(0..4) == 0, rng.i64(0..30));
            let position = QueuePosition { due_at, delivery: DeliveryId(id) };
            let rank = QueueRank::Number(rng.i64(-3..3));
            let failures = u32::from(rng.u8(0..3) == 0);
            let (range, place) = match (number, failures) {
                // If the queue of this directory is not settled, some of its deliveries are still in the shared queue.
                (1, _) if !is_settled && id % 2 == 0 => (RangeOf::Shared { large }, LanePlace::ByTime(position)),
                (0 | 3, 0) => (RangeOf::Ranked { queue: directory.clone(), large }, LanePlace::Ranked(rank, position)),
                (0 | 1 | 3, _) => (RangeOf::Own { queue: directory.clone(), large }, LanePlace::ByTime(position)),
                _ => (RangeOf::Shared { large }, LanePlace::ByTime(position)),
            };
            let queued = Queued {
                position,
                version: VersionId(id),
                directory,
                path: RelPath::new(format!("{}{id}", ["plain", "rare"][usize::from(rng.u8(0..8) == 0)])).unwrap(),
                kind: VersionKind::File,
                size: 1,
                admitted_at: 0,
                progress: DeliveryState::Pending,
                failures,
                reason: None,
                parked: false,
            };
            Item { queued, range, place }
        };
        let items = (0..count).map(item).collect();
        let queues = vec![(name(0), true), (name(1), is_settled), (name(3), true)];
        Self { items, queues, wanted: Wanted { directories: None, search: None, never_failed: false }, examined: 0 }
    }

    /// Returns the deliveries of all stages in order, as the documentation of [`QueueStage`] and [`QueueLane`]
    /// describes it.
    fn listed(&self, stages: &[QueueStage]) -> Vec<DeliveryId> {
        let old = QueueLane { shared: false, queues: vec![name(3)], ranked: true };
        let rest = QueueStage { lanes: vec![old.clone()], due_after: i64::MIN, due_until: i64::MAX };
        let is_named = stages.iter().flat_map(|stage| &stage.lanes).any(|lane| lane.queues.contains(&old.queues[0]));
        let mut listed = Vec::new();
        for stage in stages.iter().chain((!is_named).then_some(&rest)) {
            let is_in = |lane: &QueueLane, item: &Item| {
                let due_at = item.queued.position.due_at;
                let is_due = due_at > stage.due_after && due_at <= stage.due_until;
                match &item.range {
                    RangeOf::Shared { .. } => lane.shared && is_due,
                    RangeOf::Own { queue, .. } => lane.queues.contains(queue) && is_due,
                    RangeOf::Ranked { queue, .. } => lane.queues.contains(queue) && lane.ranked,
                    RangeOf::Failed { .. } | RangeOf::Versions(_) => false,
                }
            };
            let lane = |lane: &QueueLane| {
                let mut places: Vec<&LanePlace> =
                    self.items.iter().filter(|item| is_in(lane, item)).map(|item| &item.place).collect();
                places.sort_unstable();
                places
            };
            let lanes: Vec<Vec<&LanePlace>> = stage.lanes.iter().map(lane).collect();
            let longest = lanes.iter().map(Vec::len).max().unwrap_or(0);
            let turn = |turn: usize| lanes.iter().filter_map(move |lane| lane.get(turn));
            listed.extend((0..longest).flat_map(turn).map(|place| place.position().delivery));
        }
        listed
    }

    async fn page(
        &mut self,
        stages: &[QueueStage],
        filter: &'static QueueFilter,
        from: Option<&QueueCursor>,
        (limit, effort): (usize, Effort),
    ) -> QueuePage {
        (self.wanted, self.examined) = (Wanted::of(filter), 0);
        page(self, stages, filter, from, (limit, effort)).await.unwrap()
    }
}

/// Returns several lists of stages: with priorities, with a lane that merges queues beside a lane with an order, and
/// with a stage for later attempts. Only the last list names the queue `old`.
fn stages() -> Vec<Vec<QueueStage>> {
    let lane = |shared, queues: &[u8], ranked| QueueLane {
        shared,
        queues: queues.iter().copied().map(name).collect(),
        ranked,
    };
    let stage = |lanes, due_after, due_until| QueueStage { lanes, due_after, due_until };
    let later = || stage(vec![lane(true, &[0, 1], false)], 15, i64::MAX);
    vec![
        vec![stage(vec![lane(false, &[0], true), lane(true, &[1], false)], i64::MIN, 15), later()],
        vec![
            stage(vec![lane(false, &[1], false)], i64::MIN, 15),
            stage(vec![lane(true, &[], false), lane(false, &[0], true)], i64::MIN, 15),
            later(),
        ],
        vec![stage(vec![lane(true, &[0, 1], true)], i64::MIN, i64::MAX)],
        vec![stage(vec![lane(true, &[0, 1], true), lane(false, &[3], true)], i64::MIN, i64::MAX)],
    ]
}

fn filters() -> &'static [QueueFilter] {
    let all = QueueFilter::default;
    let filters = (0..4).map(|number| QueueFilter { directory: Some(name(number)), ..all() }).chain([
        all(),
        QueueFilter { directory: Some(DirectoryName::new("none")), ..all() },
        QueueFilter { among: Some(vec![name(0), name(1)]), ..all() },
        QueueFilter { among: Some(vec![name(1), name(2)]), ..all() },
        QueueFilter { among: Some(Vec::new()), ..all() },
        QueueFilter { among: Some(vec![name(0), name(2)]), directory: Some(name(2)), ..all() },
        QueueFilter { search: Some("rare".into()), ..all() },
        QueueFilter { search: Some("nowhere".into()), ..all() },
        QueueFilter { search: Some("7".into()), directory: Some(name(2)), ..all() },
        QueueFilter { state: Some(QueueState::Waiting), ..all() },
        QueueFilter { state: Some(QueueState::Waiting), search: Some("rare".into()), ..all() },
    ]);
    Vec::leak(filters.collect())
}

/// The limits of one answer: `WHOLE` allows everything at once, and `LITTLE` so little that almost each piece ends a
/// page.
const WHOLE: Effort = Effort { deliveries: usize::MAX, time: Duration::MAX };
const LITTLE: Effort = Effort { deliveries: 1, time: Duration::ZERO };

#[tokio::test]
async fn pages_of_any_size_and_effort_are_the_queue_without_what_the_filter_rejects() {
    let mut rng = fastrand::Rng::with_seed(29);
    let (filters, stages, mut short) = (filters(), stages(), 0);
    for _ in 0..60 {
        let mut queue = Memory::random(&mut rng);
        for stages in &stages {
            let whole = queue.page(stages, &filters[4], None, (1000, WHOLE)).await;
            let ids: Vec<DeliveryId> = whole.entries.iter().map(|entry| entry.position.delivery).collect();
            assert_eq!((ids, whole.next), (queue.listed(stages), None));
            assert_eq!(whole.entries.len(), queue.items.len(), "each one is listed once");
            for filter in filters {
                queue.wanted = Wanted::of(filter);
                let is_wanted = |entry: &&Queued| {
                    let item = queue.items.iter().find(|item| item.queued.version == entry.version);
                    queue.wants(item.unwrap())
                };
                let expected: Vec<Queued> = whole.entries.iter().filter(is_wanted).cloned().collect();
                for (limit, effort) in [(1000, WHOLE), (1, WHOLE), (3, WHOLE), (1, LITTLE), (2, LITTLE), (9, LITTLE)] {
                    let (mut listed, mut after) = (Vec::new(), None);
                    loop {
                        let page = queue.page(stages, filter, after.as_ref(), (limit, effort)).await;
                        assert!(page.entries.len() <= limit);
                        assert!(page.next.is_none() || page.next != after, "{filter:?}: no page gets nowhere");
                        short += usize::from(page.next.is_some() && page.entries.len() < limit);
                        listed.extend(page.entries);
                        after = page.next;
                        if after.is_none() {
                            break;
                        }
                    }
                    assert_eq!(listed, expected, "{filter:?}, {limit} at a time of {stages:#?}");
                }
            }
        }
    }
    assert!(short > 1000, "only {short} pages were short");
}

#[tokio::test]
async fn an_answer_examines_a_limited_number_of_deliveries_however_few_are_wanted() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut queue = Memory::random(&mut rng);
    let one = queue.items.iter().find(|item| item.range == RangeOf::Shared { large: false }).unwrap().clone();
    queue.items = Vec::new();
    for id in 0..5000 {
        let position = QueuePosition { due_at: id / 3, delivery: DeliveryId(id) };
        let (queued, range) = (Queued { position, ..one.queued.clone() }, RangeOf::Shared { large: id % 10 == 0 });
        queue.items.push(Item { queued, range, place: LanePlace::ByTime(position) });
    }
    let stages = &stages()[0];
    let vain = filters().iter().find(|filter| filter.search.as_deref() == Some("nowhere")).unwrap();
    let effort = Effort { deliveries: 500, time: Duration::MAX };
    let (mut after, mut pages, mut examined) = (None, 0, 0);
    loop {
        let page = queue.page(stages, vain, after.as_ref(), (100, effort)).await;
        assert!(page.entries.is_empty() && queue.examined <= 1500, "{} were examined", queue.examined);
        (after, pages, examined) = (page.next, pages + 1, examined + queue.examined);
        if after.is_none() {
            break;
        }
    }
    assert!((4..=20).contains(&pages) && (5000..10_000).contains(&examined), "{pages} pages, {examined} examined");
    queue.page(stages, vain, None, (100, Effort { time: Duration::ZERO, ..WHOLE })).await;
    assert!(queue.examined < 500, "{} were examined when the time was over", queue.examined);
}
