-- $1 mark. The history may have been cut: versions go on above every one that was ever drawn. Two that
-- raise at once raise twice, and the first notices at its next group.
WITH s AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'on', true) AS synchronous_commit,
         set_config('lock_timeout', '5s', true) AS lock_timeout
), held AS MATERIALIZED (
  SELECT t.generation + 1 AS generation FROM s, oncekey.store t WHERE t.one FOR UPDATE OF t
), drawn AS MATERIALIZED (
  SELECT generation, setval('oncekey.version', generation << 44) FROM held
), raised AS (
  UPDATE oncekey.store t SET generation = drawn.generation FROM drawn WHERE t.one RETURNING t.generation
)
INSERT INTO oncekey.boot (mark) SELECT $1::bigint FROM raised
ON CONFLICT (one) DO UPDATE SET mark = excluded.mark
