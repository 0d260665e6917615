-- $1 name, $2 lease, $3 build, $4 lanes. The predecessor of the same name ends; recovery is immediate.
WITH s AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'on', true) AS synchronous_commit,
         set_config('lock_timeout', '5s', true) AS lock_timeout,
         set_config('client_min_messages', 'warning', true) AS client_min_messages,
         greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_time) AS now
  FROM oncekey.store WHERE one
), before AS (
  UPDATE oncekey.instance i SET ended_at = s.now FROM s
  WHERE i.name = $1::text AND $1 <> '' AND i.ended_at IS NULL
), new AS (
  INSERT INTO oncekey.instance (id, name, lease_ms, since, lease_until, build)
  SELECT nextval('oncekey.version'), $1, $2::bigint, s.now, s.now + $2, $3::text FROM s
  RETURNING id, lease_until
), mark AS (
  INSERT INTO oncekey.mark (instance, lane, number) SELECT id, lane, 0 FROM new, generate_series(0, $4::smallint - 1) lane
)
SELECT new.id, new.lease_until, s.now FROM s, new
