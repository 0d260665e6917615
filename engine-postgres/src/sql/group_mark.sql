, mark AS (                                      -- only with a change: a group of answers alone writes nothing
  UPDATE oncekey.mark SET number = $6 WHERE instance = $2 AND EXISTS (SELECT 1 FROM done)
)
