-- Instances whose lease is over, and whether one ended since the last whole scan over `key` began.
SELECT ARRAY(SELECT i.id FROM oncekey.instance i
             WHERE i.ended_at IS NULL AND (i.lease_until < s.now OR i.lease_until > s.now + i.lease_ms)) AS lapsed,
       EXISTS (SELECT 1 FROM oncekey.instance i, oncekey.upkeep u WHERE u.one AND i.ended_at >= u.whole) AS behind
FROM (SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_time) AS now
      FROM oncekey.store WHERE one) s
