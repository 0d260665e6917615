, upd AS (                                       -- versions are drawn before the locks. They grow all the same: a row that
  UPDATE oncekey.key k SET                       -- was changed meanwhile has another version than the expected one
    version    = n.v, writer = $8::bigint, op = n.op, state = n.state, since = n.now, expires_at = n.now + n.expires_in,
    leaf       = CASE WHEN (n.now + n.expires_in) / n.bucket_ms - n.now / n.bucket_ms BETWEEN 0 AND n.leaves - 3
                      THEN ((n.now + n.expires_in) / n.bucket_ms % n.leaves)::smallint ELSE n.leaves END,
    checkpoint = NULL
  FROM (SELECT e.*, s.now, s.bucket_ms, s.leaves, nextval('oncekey.version') AS v
        FROM s, e WHERE s.gate = 0 AND NOT s.ended) n
  WHERE k.hash = n.hash AND k.version = n.expected AND k.state = 1 AND k.owner = $2
    AND (k.deadline IS NULL OR k.deadline + k.ttl_ms > n.now)
  RETURNING k.hash, k.version, k.since AS now, k.expires_at, k.leaf, n.body
), res AS (
  INSERT INTO oncekey.response (leaf, version, expires_at, hash, body)
  SELECT leaf, version, expires_at, hash, body FROM upd
)
