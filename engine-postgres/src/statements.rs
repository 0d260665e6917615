//! The text of every statement, and the shapes of the group statement.

use tokio_postgres::types::Type;

use crate::column::{self, Column};

/// A statement with the types of its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    /// Its number among all statements of the crate.
    pub(crate) id: usize,
    pub(crate) text: String,
    pub(crate) types: Vec<Type>,
}

/// All statements for one schema.
#[derive(Debug)]
pub(crate) struct Statements {
    /// New claims, and ends of claims that the instance holds. They return what they carried out.
    pub(crate) lean: Shapes,
    /// All changes. They return the rows of those that they did not carry out, too.
    pub(crate) full: Shapes,
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
    fn new(shape: fn(many: bool, claims: bool, changes: bool) -> Sql) -> Self {
        Self {
            claim: shape(false, true, false),
            change: shape(false, false, true),
            claims: shape(true, true, false),
            changes: shape(true, false, true),
            group: shape(true, true, true),
        }
    }

    /// The statement for so many claims and changes.
    pub(crate) fn of(&self, claims: usize, changes: usize) -> &Sql {
        match (claims, changes) {
            (1, 0) => &self.claim,
            (0, 1) => &self.change,
            (_, 0) => &self.claims,
            (0, _) => &self.changes,
            (_, _) => &self.group,
        }
    }

    fn all(&mut self) -> [&mut Sql; 5] {
        [&mut self.claim, &mut self.change, &mut self.claims, &mut self.changes, &mut self.group]
    }
}

const GATE: &str = include_str!("sql/gate.sql");
const IMAGES: &str = include_str!("sql/full_images.sql");
const CLAIMS: &str = include_str!("sql/full_claims.sql");
const CHANGES: &str = include_str!("sql/full_changes.sql");
const LEAN_CLAIMS: &str = include_str!("sql/lean_claims.sql");
const LEAN_ENDS: &str = include_str!("sql/lean_ends.sql");
const MARK: &str = include_str!("sql/group_mark.sql");
const ANSWER: &str = include_str!("sql/answer.sql");

/// The leaves of the ring. There is one more, the spare.
pub(crate) const LEAVES: i16 = 8;

/// The types of the parameters of [`GATE`].
const GATE_TYPES: [Type; 7] =
    [Type::TEXT, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT2];

/// The text of a statement while its parameters are added.
struct Parts {
    text: String,
    types: Vec<Type>,
    /// Whether the parameters are arrays.
    many: bool,
}

impl Parts {
    /// A gated statement.
    fn gated(many: bool) -> Self {
        Self { text: GATE.to_owned(), types: GATE_TYPES.to_vec(), many }
    }

    /// Adds a text that reads the relation `name`, which is made of parameters.
    fn reading(&mut self, name: &str, columns: &[Column], text: &str) {
        let next = self.types.len() + 1;
        let columns = columns.iter().map(|column| column.sql());
        let (names, of): (Vec<&str>, Vec<Type>) = columns.unzip();
        let typed = of.iter().enumerate();
        let typed = typed.map(|(at, of)| format!("${}::{}", next + at, of.name()));
        let relation = match self.many {
            true => {
                let arrays: Vec<String> = typed.map(|one| one + "[]").collect();
                format!("unnest({}) AS {name}({})", arrays.join(", "), names.join(", "))
            }
            false => {
                let columns: Vec<String> =
                    typed.zip(&names).map(|(value, name)| format!("{value} AS {name}")).collect();
                format!("(SELECT {}) {name}", columns.join(", "))
            }
        };
        self.text += &text.replace(&format!("FROM s, {name}"), &format!("FROM s, {relation}"));
        self.types.extend(match self.many {
            true => of.iter().map(array).collect(),
            false => of,
        });
    }

    fn finish(self) -> Sql {
        Sql { id: 0, text: self.text, types: self.types }
    }
}

/// A group of new claims, and of ends of claims that the instance holds. It returns one row for each
/// of those that were carried out.
fn lean(many: bool, claims: bool, ends: bool) -> Sql {
    let mut parts = Parts::gated(many);
    // $8: the writer of all changes.
    parts.types.push(Type::INT8);
    let mut done = Vec::new();
    if claims {
        parts.reading("c", column::CLAIM, LEAN_CLAIMS);
        done.push("SELECT hash, version, now FROM ins");
    }
    if ends {
        parts.reading("e", column::END, LEAN_ENDS);
        done.push("SELECT hash, version, now FROM upd");
    }
    parts.text += &format!(", done AS MATERIALIZED ({})\n{MARK}", done.join(" UNION ALL "));
    parts.text += "SELECT hash, version, now FROM done";
    parts.finish()
}

/// A group of any changes, and the rows of those that were not carried out.
fn full(many: bool, claims: bool, changes: bool) -> Sql {
    let mut parts = Parts::gated(many);
    parts.reading("i", column::ANY, IMAGES);
    let asked = if many { "unnest($8)" } else { "$8" };
    parts.text += &format!(", asked AS MATERIALIZED (SELECT {asked} AS hash)\n");
    let mut done = Vec::new();
    if claims {
        parts.text += CLAIMS;
        done.push("SELECT hash, version FROM ins");
    }
    if changes {
        parts.text += CHANGES;
        done.push("SELECT hash, version FROM upd");
    }
    parts.text += &format!(", done AS MATERIALIZED ({})\n{MARK}", done.join(" UNION ALL "));
    parts.text += ANSWER;
    parts.finish()
}

/// The rows that `asked` names, with the same columns as the answer of a group.
fn rows(asked: &str, types: &[Type]) -> Sql {
    let nothing = "SELECT NULL::uuid AS hash, NULL::bigint AS version WHERE false";
    let text = format!(
        "{GATE}, asked AS MATERIALIZED ({asked})\n, done AS MATERIALIZED ({nothing})\n{ANSWER}"
    );
    Sql { id: 0, text, types: GATE_TYPES.into_iter().chain(types.iter().cloned()).collect() }
}

fn array(of: &Type) -> Type {
    match *of {
        Type::UUID => Type::UUID_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::BOOL => Type::BOOL_ARRAY,
        _ => Type::BYTEA_ARRAY,
    }
}

fn sql(text: &str, types: &[Type]) -> Sql {
    Sql { id: 0, text: text.to_owned(), types: types.to_vec() }
}

impl Statements {
    /// The statements for the tables of `schema`.
    pub(crate) fn new(schema: &str) -> Self {
        use Type as T;
        let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
        let leaf = |number| format!("TRUNCATE oncekey.response_{number}");
        let mut statements = Self {
            lean: Shapes::new(lean),
            full: Shapes::new(full),
            read: rows("SELECT unnest($8::uuid[]) AS hash", &[T::UUID_ARRAY]),
            orphans: rows(
                "SELECT hash FROM oncekey.orphan WHERE $8::uuid IS NULL OR hash > $8 ORDER BY hash LIMIT $9::bigint",
                &[T::UUID, T::INT8],
            ),
            scan: rows(
                "SELECT hash FROM oncekey.key WHERE hash >= $8::uuid ORDER BY hash LIMIT $9::bigint",
                &[T::UUID, T::INT8],
            ),
            expiring: sql(include_str!("sql/expiring.sql"), &[]),
            settings: sql(include_str!("sql/settings.sql"), &[]),
            store: sql(include_str!("sql/store.sql"), &[]),
            raise: sql(include_str!("sql/raise.sql"), &[T::INT8]),
            accept_clock: sql(include_str!("sql/accept_clock.sql"), &[]),
            register: sql(include_str!("sql/register.sql"), &[T::TEXT, T::INT8, T::TEXT, T::INT2]),
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
        for (id, sql) in statements.all().enumerate() {
            sql.id = id;
            name(&mut sql.text);
        }
        statements.upkeep_truncate.iter_mut().chain([&mut statements.schema]).for_each(name);
        statements
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Sql> {
        let groups = [self.lean.all(), self.full.all()].into_iter().flatten();
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
    }

    /// The text that makes an empty store, for those who run their migrations themselves.
    pub(crate) fn creation(&self) -> &str {
        &self.schema
    }
}
