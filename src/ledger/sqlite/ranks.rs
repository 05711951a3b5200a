//! SQL for the rank and the expiry of a delivery in the queue of its directory.

/// The rank of a delivery of the version `v` in the queue `q`: a number, or the path; `NULL` with the ordering
/// `oldest`. A negative size means a size of 2^63 or more, see `signed`.
macro_rules! rank {
    () => {
        "CASE q.ordering
             WHEN 'newest' THEN -(v.mtime * 1000 + v.mtime_nanos / 1000000)
             WHEN 'smallest' THEN iif(v.size < 0, 9223372036854775807, v.size)
             WHEN 'name' THEN v.path
         END"
    };
}

/// The rank of the delivery `d` in its queue. A delivery that starts again needs this rank, because a failure removes
/// the rank of a delivery.
macro_rules! rank_anew {
    () => {
        concat!("(SELECT ", rank!(), " FROM version v, queue q WHERE v.id = d.version AND q.directory = d.queue)")
    };
}

/// The time at which a delivery of the version `v` in the queue `q` expires. Only files expire.
macro_rules! expires_at {
    () => {
        "iif(v.kind = 'file', v.admitted_at + q.expire, NULL)"
    };
}
pub(super) use {expires_at, rank, rank_anew};
