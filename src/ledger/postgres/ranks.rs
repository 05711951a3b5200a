//! SQL for the rank and the expiry of a delivery in the queue of its directory.

/// The rank of a delivery of the version `v` in the queue `q`, as bytes: the key of a number, or of the path; `NULL`
/// with the ordering `oldest`. A negative size means a size of 2^63 or more, see `signed`. Times are limited, so that
/// they fit into a rank in milliseconds.
macro_rules! rank {
    () => {
        "CASE q.ordering
             WHEN 'newest' THEN number_key(-(least(greatest(v.mtime, -9000000000000000), 9000000000000000) * 1000
                 + v.mtime_nanos / 1000000))
             WHEN 'smallest' THEN number_key(CASE WHEN v.size < 0 THEN 9223372036854775807 ELSE v.size END)
             WHEN 'name' THEN path_key(v.path)
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
        "CASE WHEN v.kind = 'file' THEN v.admitted_at + q.expire END"
    };
}
pub(super) use {expires_at, rank, rank_anew};
