//! The text of every statement, and the shapes of the group statement.

use tokio_postgres::types::Type;

/// A statement with the types of its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) types: Vec<Type>,
}

/// All statements for one schema.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Groups whose changes are expected to be carried out.
    pub(crate) plain: Shapes,
    /// Groups that are expected to meet rows, and return them.
    pub(crate) meeting: Shapes,
    pub(crate) read: Sql,
    pub(crate) orphans: Sql,
    pub(crate) scan: Sql,
    pub(crate) expiring: Sql,
    pub(crate) settings: Sql,
    pub(crate) store: Sql,
    pub(crate) raise: Sql,
    pub(crate) accept_clock: Sql,
    pub(crate) register: Sql,
    pub(crate) renew: Sql,
    pub(crate) end: Sql,
    pub(crate) close: Sql,
    pub(crate) create: Sql,
    pub(crate) complete_in: Sql,
    pub(crate) lapsed: Sql,
    pub(crate) silent: Sql,
    pub(crate) upkeep_elect: Sql,
    pub(crate) upkeep_scan: Sql,
    pub(crate) upkeep_expire: Sql,
    pub(crate) upkeep_truncate: Vec<String>,
    pub(crate) upkeep_forget: Sql,
    pub(crate) upkeep_size: Sql,
    pub(crate) schema: String,
}

/// The statements of a group, one for each mix of claims and changes.
#[derive(Debug)]
pub(crate) struct Shapes {
    pub(crate) claim: Sql,
    pub(crate) change: Sql,
    pub(crate) claims: Sql,
    pub(crate) changes: Sql,
    pub(crate) group: Sql,
}

impl Shapes {
    /// `meets`: the statements return the rows of the changes that were not carried out.
    fn new(meets: bool) -> Self {
        Self {
            claim: group(false, (true, false), meets),
            change: group(false, (false, true), meets),
            claims: group(true, (true, false), meets),
            changes: group(true, (false, true), meets),
            group: group(true, (true, true), meets),
        }
    }

    fn all(&mut self) -> [&mut Sql; 5] {
        [&mut self.claim, &mut self.change, &mut self.claims, &mut self.changes, &mut self.group]
    }
}

const GATE: &str = include_str!("sql/gate.sql");
const IMAGE: &str = include_str!("sql/group_image.sql");
const IMAGES: &str = include_str!("sql/group_images.sql");
const CLAIMS: &str = include_str!("sql/group_claims.sql");
const CHANGES: &str = include_str!("sql/group_changes.sql");
const MARK: &str = include_str!("sql/group_mark.sql");
const ANSWER: &str = include_str!("sql/answer.sql");
const TOLD: &str = include_str!("sql/told.sql");

/// The leaves of the ring. There is one more, the spare.
pub(crate) const LEAVES: i16 = 8;

/// The types of the parameters of [`GATE`].
const GATE_TYPES: [Type; 6] =
    [Type::TEXT, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8];

/// The types of the parameters of one image, which follow those of the gate.
const IMAGE_TYPES: [Type; 16] = [
    Type::UUID,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT2,
    Type::INT4,
    Type::BOOL,
    Type::BOOL,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::BYTEA,
    Type::BYTEA,
    Type::BYTEA,
    Type::BYTEA,
];

/// A group statement, put together for one image or many, and for claims, changes or both.
fn group(many: bool, (claims, changes): (bool, bool), meets: bool) -> Sql {
    let (images, asked) = match many {
        true => (IMAGES, "unnest($7::uuid[])"),
        false => (IMAGE, "$7::uuid"),
    };
    let mut text = format!("{GATE}{images}");
    if meets {
        text += &format!(", asked AS MATERIALIZED (SELECT {asked} AS hash)\n");
    }
    let mut done = Vec::new();
    if claims {
        text += CLAIMS;
        done.push("SELECT hash, version FROM ins");
    }
    if changes {
        text += CHANGES;
        done.push("SELECT hash, version FROM upd");
    }
    text += &format!(", done AS MATERIALIZED ({})\n", done.join(" UNION ALL "));
    text += MARK;
    text += if meets { ANSWER } else { TOLD };
    let types = GATE_TYPES.into_iter().chain(match many {
        true => IMAGE_TYPES.map(array),
        false => IMAGE_TYPES,
    });
    Sql { text, types: types.collect() }
}

/// The rows that `asked` names, with the same columns as the answer of a group.
fn rows(asked: &str, types: &[Type]) -> Sql {
    let nothing = "SELECT NULL::uuid AS hash, NULL::bigint AS version WHERE false";
    let text = format!(
        "{GATE}, asked AS MATERIALIZED ({asked})\n, done AS MATERIALIZED ({nothing})\n{ANSWER}"
    );
    Sql { text, types: GATE_TYPES.into_iter().chain(types.iter().cloned()).collect() }
}

fn array(of: Type) -> Type {
    match of {
        Type::UUID => Type::UUID_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::BOOL => Type::BOOL_ARRAY,
        _ => Type::BYTEA_ARRAY,
    }
}

fn sql(text: &str, types: &[Type]) -> Sql {
    Sql { text: text.to_owned(), types: types.to_vec() }
}

impl Statements {
    /// The statements for the tables of `schema`.
    pub(crate) fn new(schema: &str) -> Self {
        use Type as T;
        let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
        let leaf = |number| format!("TRUNCATE oncekey.response_{number}");
        let mut statements = Self {
            plain: Shapes::new(false),
            meeting: Shapes::new(true),
            read: rows("SELECT unnest($7::uuid[]) AS hash", &[T::UUID_ARRAY]),
            orphans: rows(
                "SELECT hash FROM oncekey.orphan WHERE $7::uuid IS NULL OR hash > $7 ORDER BY hash LIMIT $8::bigint",
                &[T::UUID, T::INT8],
            ),
            scan: rows(
                "SELECT hash FROM oncekey.key WHERE hash >= $7::uuid ORDER BY hash LIMIT $8::bigint",
                &[T::UUID, T::INT8],
            ),
            expiring: sql(include_str!("sql/expiring.sql"), &[]),
            settings: sql(include_str!("sql/settings.sql"), &[]),
            store: sql(include_str!("sql/store.sql"), &[]),
            raise: sql(include_str!("sql/raise.sql"), &[T::INT8]),
            accept_clock: sql(include_str!("sql/accept_clock.sql"), &[]),
            register: sql(include_str!("sql/register.sql"), &[T::TEXT, T::INT8, T::TEXT]),
            renew: sql(include_str!("sql/renew.sql"), &[T::INT8; 3]),
            end: sql(include_str!("sql/end.sql"), &[T::INT8, T::INT8_ARRAY]),
            close: sql(include_str!("sql/close.sql"), &[T::INT8]),
            create: sql(include_str!("sql/create.sql"), &[T::INT8, T::BYTEA, T::INT8, T::INT2]),
            complete_in: sql(
                include_str!("sql/complete_in.sql"),
                &[T::TEXT, T::INT8, T::UUID, T::INT8, T::BYTEA, T::INT8],
            ),
            lapsed: sql(include_str!("sql/lapsed.sql"), &[]),
            silent: sql(include_str!("sql/silent.sql"), &[]),
            upkeep_elect: sql(include_str!("sql/upkeep_elect.sql"), &[T::INT8]),
            upkeep_scan: sql(include_str!("sql/upkeep_scan.sql"), &[T::INT8]),
            upkeep_expire: sql(
                include_str!("sql/upkeep_expire.sql"),
                &[T::INT2, T::INT8, T::INT8, T::BOOL],
            ),
            upkeep_truncate: (0..LEAVES).map(leaf).collect(),
            upkeep_forget: sql(include_str!("sql/upkeep_forget.sql"), &[]),
            upkeep_size: sql(include_str!("sql/upkeep_size.sql"), &[]),
            schema: include_str!("sql/schema.sql").to_owned(),
        };
        for leaf in 0..=LEAVES {
            statements.schema += &format!(
                "\nCREATE TABLE oncekey.response_{leaf} PARTITION OF oncekey.response FOR VALUES IN ({leaf});"
            );
        }
        // `oncekey.` is the name of the schema wherever it occurs in the texts.
        let name = |text: &mut String| {
            *text = text
                .replace("oncekey.", &format!("{quoted}."))
                .replace("EXISTS oncekey;", &format!("EXISTS {quoted};"));
        };
        statements.texts().for_each(name);
        statements
    }

    fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let groups = [self.plain.all(), self.meeting.all()].into_iter().flatten();
        [
            &mut self.read,
            &mut self.orphans,
            &mut self.scan,
            &mut self.expiring,
            &mut self.settings,
            &mut self.store,
            &mut self.raise,
            &mut self.accept_clock,
            &mut self.register,
            &mut self.renew,
            &mut self.end,
            &mut self.close,
            &mut self.create,
            &mut self.complete_in,
            &mut self.lapsed,
            &mut self.silent,
            &mut self.upkeep_elect,
            &mut self.upkeep_scan,
            &mut self.upkeep_expire,
            &mut self.upkeep_forget,
            &mut self.upkeep_size,
        ]
        .into_iter()
        .chain(groups)
        .map(|sql| &mut sql.text)
        .chain(&mut self.upkeep_truncate)
        .chain([&mut self.schema])
    }

    /// The text that makes an empty store, for those who run their migrations themselves.
    pub(crate) fn creation(&self) -> &str {
        &self.schema
    }
}
