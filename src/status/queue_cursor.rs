//! Converts cursors of `/api/queue` to text and back. A cursor has a vessel, a place in the vessel's queue, and the
//! number of bytes of the deliveries before this place.

use crate::ledger::{LanePlace, QueueCursor, QueuePosition, QueueRank};
use crate::records::DeliveryId;
use crate::settings::Priority;

/// Number of bytes of the deliveries already listed, for each priority.
pub(super) type Ahead = [u64; Priority::ALL.len()];

/// The beginning of a part of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Time of the request for the first page, in milliseconds since 1970. Later pages use the windows and due times as
    /// of this time.
    pub(super) at: i64,
    /// Fingerprint of the settings that determine the order.
    pub(super) order: u32,
    pub(super) vessel: String,
    pub(super) place: QueueCursor,
    /// Number of bytes of the vessel's deliveries already listed.
    pub(super) ahead: Ahead,
}

impl Cursor {
    pub(super) fn write(&self) -> String {
        let Self { at, order, vessel, place, ahead } = self;
        let lanes: Vec<String> = place.lanes.iter().map(|lane| write_place(lane.as_ref())).collect();
        let ahead = ahead.map(|bytes| bytes.to_string()).join("-");
        // The name comes last, because it may contain any character.
        format!("{at}.{order}.{}.{}.{ahead}.{}.{vessel}", place.stage, place.turn, lanes.join("~"))
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(7, '.');
        let mut next = || parts.next();
        let (at, order) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (stage, turn) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (ahead, lanes, vessel) = (next()?, next()?, next()?.to_owned());
        let ahead: Vec<u64> = ahead.split('-').map(|bytes| bytes.parse().ok()).collect::<Option<_>>()?;
        let ahead = Ahead::try_from(ahead).ok()?;
        let lanes = match lanes {
            "" => Vec::new(),
            lanes => lanes.split('~').map(read_place).collect::<Option<_>>()?,
        };
        Some(Self { at, order, vessel, place: QueueCursor { stage, turn, lanes }, ahead })
    }
}

fn write_place(place: Option<&LanePlace>) -> String {
    let of = |kind: &str, QueuePosition { due_at, delivery }: &QueuePosition| format!("{kind}_{due_at}_{}", delivery.0);
    match place {
        None => "-".to_owned(),
        Some(LanePlace::ByTime(position)) => of("t", position),
        Some(LanePlace::Ranked(QueueRank::Number(number), position)) => of(&format!("n{number}"), position),
        Some(LanePlace::Ranked(QueueRank::Path(path), position)) => {
            let hex: String = path.iter().map(|byte| format!("{byte:02x}")).collect();
            of(&format!("p{hex}"), position)
        }
    }
}

fn read_place(text: &str) -> Option<Option<LanePlace>> {
    if text == "-" {
        return Some(None);
    }
    let mut parts = text.split('_');
    let (kind, due_at, delivery) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let position = QueuePosition { due_at, delivery: DeliveryId(delivery) };
    let place = match (kind.get(..1)?, kind.get(1..)?) {
        ("t", "") => LanePlace::ByTime(position),
        ("n", number) => LanePlace::Ranked(QueueRank::Number(number.parse().ok()?), position),
        ("p", hex) => LanePlace::Ranked(QueueRank::Path(bytes(hex)?), position),
        _ => return None,
    };
    parts.next().is_none().then_some(Some(place))
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_whatever_the_vessel_is_called() {
        let position = QueuePosition { due_at: -5, delivery: DeliveryId(7) };
        let places = [
            None,
            Some(LanePlace::ByTime(position)),
            Some(LanePlace::Ranked(QueueRank::Number(-3), position)),
            Some(LanePlace::Ranked(QueueRank::Path(b"a.b+c_\xff/".to_vec()), position)),
        ];
        for vessel in ["tern", "a.b..c d/é"] {
            for count in 0..=places.len() {
                let ahead = [0, 12, 7, u64::MAX, 1];
                let place = QueueCursor { stage: 2, turn: 3, lanes: places[..count].to_vec() };
                let cursor = Cursor { at: 1_700_000_000_000, order: 9, vessel: vessel.to_owned(), place, ahead };
                assert_eq!(Cursor::read(&cursor.write()), Some(cursor));
            }
        }
        for bad in [
            "",
            "1",
            "1.2.3",
            "x.0.0.0.0-0-0-0-0..tern",
            "1.0.0.0.0..tern",
            "1.0.0.0.0-0-0-0--3..tern",
            "1.0.0.0.0-0-0-0-0.q_1_2.tern",
            "1.0.0.0.0-0-0-0-0.t_1.tern",
        ] {
            assert!(Cursor::read(bad).is_none(), "{bad}");
        }
    }
}
