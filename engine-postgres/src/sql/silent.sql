-- The longest lease among the instances that are silent for longer than theirs and were not declared ended.
SELECT max(i.lease_ms)
FROM oncekey.instance i, (SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, high_time) AS now
                          FROM oncekey.store WHERE one) s
WHERE i.ended_at IS NULL AND (i.lease_until < s.now OR i.lease_until > s.now + i.lease_ms)
