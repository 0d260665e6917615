-- $1 instance
WITH s AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'on', true) AS synchronous_commit,
         greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_time) AS now
  FROM oncekey.store WHERE one
)
UPDATE oncekey.instance i SET ended_at = s.now FROM s WHERE i.id = $1::bigint AND i.ended_at IS NULL
