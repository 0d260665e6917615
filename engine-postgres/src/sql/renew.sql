-- $1 instance, $2 generation, $3 boot mark. No row with an id: it has ended.
WITH s AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'on', true) AS synchronous_commit,
         set_config('lock_timeout', '250ms', true) AS lock_timeout,
         set_config('client_min_messages', 'warning', true) AS client_min_messages,
         t.now, t.high_time, t.bucket_ms,
         CASE WHEN t.generation <> $2::bigint OR (SELECT mark FROM oncekey.boot WHERE one) IS DISTINCT FROM $3::bigint
              THEN 2::smallint
              WHEN t.now > t.high_time + 2592000000 THEN 3::smallint
              ELSE 0::smallint END AS gate
  FROM (SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_time) AS now, high_time,
               bucket_ms, generation FROM oncekey.store WHERE one) t
), renewed AS (
  UPDATE oncekey.instance i SET                  -- a gap over half a lease, or a clock that went back, begins anew
    since = CASE WHEN s.now - (i.lease_until - i.lease_ms) > i.lease_ms / 2 OR i.since > s.now THEN s.now ELSE i.since END,
    lease_until = s.now + i.lease_ms
  FROM s WHERE i.id = $1::bigint AND i.ended_at IS NULL AND s.gate = 0
  RETURNING i.id, i.lease_until
), raised AS (                                   -- rarely: an hour behind, or half a bucket
  UPDATE oncekey.store t SET high_time = s.now FROM s
  WHERE t.one AND s.gate = 0 AND t.high_time < s.now - least(3600000, s.bucket_ms / 2)
)
SELECT s.gate, s.now, renewed.id, renewed.lease_until,
       (SELECT array_agg(m.number ORDER BY m.lane) FROM oncekey.mark m WHERE m.instance = $1)
FROM s LEFT JOIN renewed ON true
