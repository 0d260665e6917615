-- $1 pages. A slice of the rolling scan over `key`: lists orphans that `orphan` lacks, notes which ended
-- instances are still named, and removes rows that count as absent and have no entry to be found by.
WITH s AS MATERIALIZED (
  SELECT set_config('lock_timeout', '100ms', true) AS lock_timeout,
         greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, t.high_time) AS now, t.bucket_ms,
         u.page, u.page + $1::bigint AS next, u.began
  FROM oncekey.store t, oncekey.upkeep u WHERE t.one AND u.one
), k AS MATERIALIZED (
  SELECT k.hash, k.version, k.state, k.owner, o.id AS known, k.expires_at, k.ttl_ms,
         CASE WHEN k.state = 2 THEN k.since
              WHEN o.id IS NULL THEN NULL
              WHEN o.ended_at IS NULL THEN k.deadline
              WHEN k.deadline IS NOT NULL THEN least(k.deadline, greatest(o.ended_at, k.started_at))
              ELSE greatest(o.ended_at, k.started_at) END AS since
  FROM oncekey.key k LEFT JOIN oncekey.instance o ON o.id = k.owner
  WHERE k.ctid >= ('(' || (SELECT page FROM s) || ',0)')::tid AND k.ctid < ('(' || (SELECT next FROM s) || ',0)')::tid
    AND (k.state <> 1 OR o.id IS NULL OR o.ended_at IS NOT NULL OR k.deadline <= (SELECT now FROM s))
), listed AS (
  INSERT INTO oncekey.orphan (hash, since)
  SELECT k.hash, coalesce(k.since, s.now) FROM s, k WHERE k.state IN (1, 2) AND coalesce(k.since, s.now) + k.ttl_ms > s.now
  ON CONFLICT (hash) DO NOTHING
), named AS (
  UPDATE oncekey.instance o SET named_at = s.now FROM s
  WHERE o.id IN (SELECT owner FROM k WHERE state = 1 AND known IS NOT NULL) AND o.ended_at IS NOT NULL
), gone AS MATERIALIZED (
  SELECT x.hash FROM s, k JOIN oncekey.key x ON x.hash = k.hash AND x.version = k.version
  WHERE CASE WHEN k.state = 1 THEN k.since + k.ttl_ms ELSE k.expires_at END < s.now - 60000 - 2 * s.bucket_ms
  FOR UPDATE OF x SKIP LOCKED
), deleted AS (
  DELETE FROM oncekey.key x USING gone, k WHERE x.hash = gone.hash AND k.hash = gone.hash AND x.version = k.version RETURNING 1
), size AS (
  SELECT pg_relation_size('oncekey.key') / current_setting('block_size')::bigint AS pages
), moved AS (
  UPDATE oncekey.upkeep u SET
    page = CASE WHEN s.next >= size.pages THEN 0 ELSE s.next END,
    whole = CASE WHEN s.next >= size.pages THEN u.began ELSE u.whole END,
    began = CASE WHEN s.next >= size.pages THEN s.now ELSE u.began END
  FROM s, size WHERE u.one AND u.page = s.page
  RETURNING u.page
)
SELECT (SELECT count(*) FROM deleted), coalesce((SELECT page FROM moved), 0)
