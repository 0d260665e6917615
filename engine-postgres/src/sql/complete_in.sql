-- $1 synchronous_commit, $2 incarnation, $3 hash, $4 token, $5 response, $6 TTL instead of the record's. Runs in the caller's transaction: the
-- caller's own rows and the response become durable together. It may wait for the short group of a resolver.
WITH s AS MATERIALIZED (
  SELECT set_config('synchronous_commit', $1::text, true) AS synchronous_commit,
         greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_time) AS now, bucket_ms, leaves
  FROM oncekey.store WHERE one AND incarnation = $2::bigint
), upd AS (
  UPDATE oncekey.key k SET
    version = nextval('oncekey.version'), writer = 0, op = 0,
    state = CASE WHEN $5::bytea IS NULL THEN 4 ELSE 3 END, since = s.now, expires_at = s.now + coalesce($6::bigint, k.ttl_ms),
    leaf = CASE WHEN (s.now + coalesce($6, k.ttl_ms)) / s.bucket_ms - s.now / s.bucket_ms <= s.leaves - 3
                THEN ((s.now + coalesce($6, k.ttl_ms)) / s.bucket_ms % s.leaves)::smallint ELSE s.leaves END,
    checkpoint = NULL
  FROM s WHERE k.hash = $3::uuid AND k.token = $4::bigint AND k.state IN (1, 2)
    AND CASE WHEN k.state = 2 THEN k.expires_at > s.now
             ELSE (k.deadline IS NULL OR k.deadline + k.ttl_ms > s.now)
                  AND NOT EXISTS (SELECT 1 FROM oncekey.instance o WHERE o.id = k.owner AND o.ended_at IS NOT NULL
                                  AND greatest(o.ended_at, k.started_at) + k.ttl_ms <= s.now)
        END
  RETURNING k.hash, k.version, k.expires_at, k.leaf
), res AS (
  INSERT INTO oncekey.response (leaf, version, expires_at, hash, body)
  SELECT leaf, version, expires_at, hash, $5 FROM upd
), unorp AS (
  DELETE FROM oncekey.orphan o USING upd WHERE o.hash = upd.hash
)
SELECT version FROM upd
