-- $1 the asker, $2 the others. The lease of each is over, and the asker could itself renew for as long as
-- either lease without a gap: after an outage everybody has had that long to come back.
WITH s AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'on', true) AS synchronous_commit,
         set_config('lock_timeout', '250ms', true) AS lock_timeout,
         set_config('client_min_messages', 'warning', true) AS client_min_messages,
         greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_time) AS now
  FROM oncekey.store WHERE one
), me AS MATERIALIZED (
  SELECT i.id, i.since, i.lease_ms FROM s, oncekey.instance i
  WHERE i.id = $1::bigint AND i.ended_at IS NULL
    AND s.now - (i.lease_until - i.lease_ms) <= i.lease_ms / 2  -- a longer gap is one that its renewal would see
), clipped AS (                                  -- the clock went back: a lease lasts no longer for it than one lease
  UPDATE oncekey.instance o SET lease_until = s.now + o.lease_ms FROM s, me
  WHERE o.id = ANY ($2::bigint[]) AND o.id <> me.id AND o.ended_at IS NULL AND o.lease_until > s.now + o.lease_ms
), ended AS (
  UPDATE oncekey.instance o SET ended_at = s.now FROM s, me
  WHERE o.id = ANY ($2) AND o.id <> me.id AND o.ended_at IS NULL AND o.lease_until < s.now
    AND me.since <= s.now - greatest(me.lease_ms, o.lease_ms)
  RETURNING o.id
)
SELECT id FROM ended
