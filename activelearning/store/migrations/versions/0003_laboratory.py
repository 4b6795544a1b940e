"""Results of the laboratory are only added: replicates, corrections, files; rejections, results nobody asked for"""

from typing import Any

from alembic import op
import sqlalchemy as sa


revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def _create_results(*extra: sa.schema.SchemaItem, key: tuple[str, ...]) -> sa.Table:
    return op.create_table('lab_results',
    sa.Column('key', sa.String(length=64), nullable=False),
    *extra,
    sa.Column('value', sa.Double(), nullable=False),
    sa.Column('std', sa.Double(), nullable=True),
    sa.Column('unit', sa.String(length=64), nullable=True),
    sa.Column('censoring', sa.String(length=8), nullable=False),
    sa.Column('method', sa.Text(), nullable=True),
    sa.Column('recorded_by', sa.Text(), nullable=True),
    sa.Column('cost', sa.Double(), nullable=True),
    sa.Column('recorded_at', sa.String(length=40), nullable=False),
    sa.ForeignKeyConstraint(['key'], ['lab_requests.key'], ),
    sa.PrimaryKeyConstraint(*key)
    )


def _rows() -> list[dict[str, Any]]:
    query = sa.text('SELECT * FROM lab_results')
    return [dict(row) for row in op.get_bind().execute(query).mappings()]


def upgrade() -> None:
    # SQLite alters no primary key, and no table that another one refers to; what was recorded is little, and copied.
    rows = _rows()
    op.drop_table('lab_results')
    with op.batch_alter_table('lab_requests', schema=None) as batch_op:
        batch_op.add_column(sa.Column('origin', sa.String(length=16), nullable=False, server_default='campaign'))
        batch_op.add_column(sa.Column('reason', sa.Text(), nullable=True))
        batch_op.add_column(sa.Column('rejected_by', sa.Text(), nullable=True))
        batch_op.add_column(sa.Column('cost', sa.Double(), nullable=True))
        batch_op.add_column(sa.Column('closed_at', sa.String(length=40), nullable=True))
    table = _create_results(
        sa.Column('sequence', sa.Integer(), nullable=False),
        sa.Column('corrects', sa.Integer(), nullable=True),
        sa.Column('note', sa.Text(), nullable=True),
        key=('key', 'sequence'),
    )
    op.create_index('ix_lab_results_corrects', 'lab_results', ['key', 'corrects'], unique=True)
    op.bulk_insert(table, [{**row, 'sequence': 1, 'corrects': None, 'note': None} for row in rows])
    op.execute('UPDATE lab_requests SET closed_at = (SELECT recorded_at FROM lab_results '
               'WHERE lab_results.key = lab_requests.key)')

    op.create_table('lab_files',
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('sequence', sa.Integer(), nullable=False),
    sa.Column('path', sa.String(length=512), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('size', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['key', 'sequence'], ['lab_results.key', 'lab_results.sequence'], ),
    sa.PrimaryKeyConstraint('key', 'sequence', 'path')
    )
    op.create_table('earlier_measurements',
    sa.Column('evaluation_key', sa.String(length=64), nullable=False),
    sa.Column('sequence', sa.Integer(), nullable=False),
    sa.Column('property', sa.String(length=128), nullable=False),
    sa.Column('value', sa.Double(), nullable=False),
    sa.Column('std', sa.Double(), nullable=True),
    sa.Column('censoring', sa.String(length=8), nullable=False),
    sa.Column('unit', sa.String(length=64), nullable=True),
    sa.ForeignKeyConstraint(['evaluation_key'], ['evaluations.key'], ),
    sa.PrimaryKeyConstraint('evaluation_key', 'sequence', 'property')
    )


def downgrade() -> None:
    op.drop_table('earlier_measurements')
    op.drop_table('lab_files')
    rows = _rows()
    corrected = {(row['key'], row['corrects']) for row in rows}
    # The older schema knows one result of a request: the newest that was not corrected.
    valid = [row for row in rows if (row['key'], row['sequence']) not in corrected]
    newest = {row['key']: row for row in sorted(valid, key=lambda row: row['sequence'])}
    op.drop_table('lab_results')
    op.execute("UPDATE lab_requests SET state = 'cancelled' WHERE state = 'rejected'")
    with op.batch_alter_table('lab_requests', schema=None) as batch_op:
        for name in ('closed_at', 'cost', 'rejected_by', 'reason', 'origin'):
            batch_op.drop_column(name)
    table = _create_results(key=('key',))
    names = {column.name for column in table.columns}
    op.bulk_insert(table, [{k: v for k, v in row.items() if k in names} for row in newest.values()])
