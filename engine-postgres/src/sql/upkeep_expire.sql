-- $1 leaf, $2 after this version, $3 at most so many entries. Keys go in slices, each a minute after it
-- expired: nothing that is still on its way can bring an older one back.
WITH s AS MATERIALIZED (
  SELECT set_config('lock_timeout', '100ms', true) AS lock_timeout,
         greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_time) - 60000 AS until
  FROM oncekey.store WHERE one
), r AS MATERIALIZED (
  SELECT r.version, r.hash, r.expires_at FROM s, oncekey.response r
  WHERE r.leaf = $1::smallint AND r.version > $2::bigint ORDER BY r.version LIMIT $3::bigint
), l AS MATERIALIZED (
  SELECT k.hash, k.version FROM s, r JOIN oncekey.key k ON k.hash = r.hash AND k.version = r.version
  WHERE r.expires_at < s.until FOR UPDATE OF k SKIP LOCKED
), deleted AS (
  DELETE FROM oncekey.key k USING l WHERE k.hash = l.hash AND k.version = l.version RETURNING k.hash
), unlisted AS (
  DELETE FROM oncekey.orphan o USING deleted d WHERE o.hash = d.hash
), spare AS (                                    -- the ring is emptied by TRUNCATE, the spare leaf row by row
  DELETE FROM oncekey.response x USING s, r
  WHERE $4::boolean AND x.leaf = $1 AND x.version = r.version AND r.expires_at < s.until
    AND NOT EXISTS (SELECT 1 FROM oncekey.key k WHERE k.hash = r.hash AND k.version = r.version
                    AND k.hash NOT IN (SELECT hash FROM l))
)
SELECT count(r.version), max(r.version), (SELECT count(*) FROM deleted),
       count(*) FILTER (WHERE r.expires_at >= s.until OR
         EXISTS (SELECT 1 FROM oncekey.key k WHERE k.hash = r.hash AND k.version = r.version AND k.hash NOT IN (SELECT hash FROM l))) AS left_over
FROM s LEFT JOIN r ON true
