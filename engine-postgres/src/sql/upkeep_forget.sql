-- Instances that a whole scan, begun a minute after their end, did not meet; and drift of `orphan`.
WITH s AS MATERIALIZED (
  SELECT set_config('lock_timeout', '100ms', true) AS lock_timeout, whole FROM oncekey.upkeep WHERE one
), gone AS (
  DELETE FROM oncekey.instance i USING s
  WHERE i.ended_at < s.whole - 60000 AND coalesce(i.named_at, 0) < s.whole
  RETURNING i.id
), marks AS (
  DELETE FROM oncekey.mark m USING gone WHERE m.instance = gone.id
)
DELETE FROM oncekey.orphan o
WHERE NOT EXISTS (SELECT 1 FROM oncekey.key k WHERE k.hash = o.hash AND k.state IN (1, 2))
