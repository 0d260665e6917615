-- The clock of the server is right, however far ahead of the last time that the store saw.
WITH s AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'on', true) AS synchronous_commit,
         (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
)
UPDATE oncekey.store t SET high_time = s.now FROM s WHERE t.one AND t.high_time < s.now - 2592000000
