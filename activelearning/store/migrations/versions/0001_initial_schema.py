"""Initial schema"""

from alembic import op
import sqlalchemy as sa


revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('campaigns',
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('config', sa.JSON(), nullable=False),
    sa.Column('folder', sa.Text(), nullable=False),
    sa.Column('artifacts', sa.Text(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('created_at', sa.String(length=40), nullable=False),
    sa.Column('updated_at', sa.String(length=40), nullable=False),
    sa.PrimaryKeyConstraint('name')
    )
    op.create_table('lab_requests',
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('campaign', sa.String(length=128), nullable=False),
    sa.Column('fidelity', sa.String(length=64), nullable=False),
    sa.Column('property', sa.String(length=128), nullable=False),
    sa.Column('unit', sa.String(length=64), nullable=True),
    sa.Column('candidate', sa.JSON(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('created_at', sa.String(length=40), nullable=False),
    sa.PrimaryKeyConstraint('key')
    )
    with op.batch_alter_table('lab_requests', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_lab_requests_campaign'), ['campaign'], unique=False)

    op.create_table('workers',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('campaign', sa.String(length=128), nullable=True),
    sa.Column('host', sa.String(length=256), nullable=False),
    sa.Column('pid', sa.Integer(), nullable=False),
    sa.Column('process_started', sa.String(length=64), nullable=False),
    sa.Column('heartbeat', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_table('checkpoints',
    sa.Column('campaign', sa.String(length=128), nullable=False),
    sa.Column('component', sa.String(length=32), nullable=False),
    sa.Column('round', sa.Integer(), nullable=False),
    sa.Column('state', sa.LargeBinary(), nullable=False),
    sa.ForeignKeyConstraint(['campaign'], ['campaigns.name'], ),
    sa.PrimaryKeyConstraint('campaign', 'component')
    )
    op.create_table('lab_results',
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('value', sa.Double(), nullable=False),
    sa.Column('std', sa.Double(), nullable=True),
    sa.Column('unit', sa.String(length=64), nullable=True),
    sa.Column('censoring', sa.String(length=8), nullable=False),
    sa.Column('method', sa.Text(), nullable=True),
    sa.Column('recorded_by', sa.Text(), nullable=True),
    sa.Column('cost', sa.Double(), nullable=True),
    sa.Column('recorded_at', sa.String(length=40), nullable=False),
    sa.ForeignKeyConstraint(['key'], ['lab_requests.key'], ),
    sa.PrimaryKeyConstraint('key')
    )
    op.create_table('leases',
    sa.Column('campaign', sa.String(length=128), nullable=False),
    sa.Column('worker', sa.String(length=64), nullable=False),
    sa.ForeignKeyConstraint(['campaign'], ['campaigns.name'], ),
    sa.PrimaryKeyConstraint('campaign')
    )
    op.create_table('rounds',
    sa.Column('campaign', sa.String(length=128), nullable=False),
    sa.Column('index', sa.Integer(), nullable=False),
    sa.Column('model_fingerprint', sa.String(length=64), nullable=True),
    sa.Column('summary', sa.JSON(), nullable=False),
    sa.Column('timings', sa.JSON(), nullable=False),
    sa.Column('committed_at', sa.String(length=40), nullable=False),
    sa.ForeignKeyConstraint(['campaign'], ['campaigns.name'], ),
    sa.PrimaryKeyConstraint('campaign', 'index')
    )
    op.create_table('evaluations',
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('campaign', sa.String(length=128), nullable=False),
    sa.Column('round', sa.Integer(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('content_key', sa.String(length=64), nullable=False),
    sa.Column('replicate', sa.Integer(), nullable=False),
    sa.Column('candidate_key', sa.String(length=64), nullable=False),
    sa.Column('candidate', sa.JSON(), nullable=False),
    sa.Column('fidelity', sa.String(length=64), nullable=False),
    sa.Column('oracle', sa.Text(), nullable=False),
    sa.Column('oracle_version', sa.String(length=64), nullable=False),
    sa.Column('property', sa.String(length=128), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('acquisition', sa.Double(), nullable=True),
    sa.Column('predicted_mean', sa.Double(), nullable=True),
    sa.Column('predicted_std', sa.Double(), nullable=True),
    sa.Column('cost_reserved', sa.Double(), nullable=False),
    sa.Column('cost_paid', sa.Double(), nullable=True),
    sa.Column('external_id', sa.String(length=256), nullable=True),
    sa.Column('claimed_by', sa.String(length=64), nullable=True),
    sa.Column('details', sa.JSON(), nullable=False),
    sa.Column('seconds', sa.Double(), nullable=True),
    sa.Column('created_at', sa.String(length=40), nullable=False),
    sa.Column('finished_at', sa.String(length=40), nullable=True),
    sa.ForeignKeyConstraint(['campaign', 'round'], ['rounds.campaign', 'rounds.index'], ),
    sa.PrimaryKeyConstraint('key')
    )
    with op.batch_alter_table('evaluations', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_evaluations_content_key'), ['content_key'], unique=False)
        batch_op.create_index('ix_evaluations_order', ['campaign', 'round', 'position'], unique=True)
        batch_op.create_index('ix_evaluations_state', ['campaign', 'state'], unique=False)

    op.create_table('artifacts',
    sa.Column('evaluation_key', sa.String(length=64), nullable=False),
    sa.Column('path', sa.String(length=512), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('size', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['evaluation_key'], ['evaluations.key'], ),
    sa.PrimaryKeyConstraint('evaluation_key', 'path')
    )
    op.create_table('ledger',
    sa.Column('evaluation_key', sa.String(length=64), nullable=False),
    sa.Column('sequence', sa.Integer(), nullable=False),
    sa.Column('campaign', sa.String(length=128), nullable=False),
    sa.Column('kind', sa.String(length=8), nullable=False),
    sa.Column('reserved', sa.Double(), nullable=False),
    sa.Column('spent', sa.Double(), nullable=False),
    sa.Column('at', sa.String(length=40), nullable=False),
    sa.ForeignKeyConstraint(['evaluation_key'], ['evaluations.key'], ),
    sa.PrimaryKeyConstraint('evaluation_key', 'sequence')
    )
    with op.batch_alter_table('ledger', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_ledger_campaign'), ['campaign'], unique=False)

    op.create_table('measurements',
    sa.Column('evaluation_key', sa.String(length=64), nullable=False),
    sa.Column('property', sa.String(length=128), nullable=False),
    sa.Column('value', sa.Double(), nullable=False),
    sa.Column('std', sa.Double(), nullable=True),
    sa.Column('censoring', sa.String(length=8), nullable=False),
    sa.Column('unit', sa.String(length=64), nullable=True),
    sa.ForeignKeyConstraint(['evaluation_key'], ['evaluations.key'], ),
    sa.PrimaryKeyConstraint('evaluation_key', 'property')
    )
    op.create_table('transitions',
    sa.Column('evaluation_key', sa.String(length=64), nullable=False),
    sa.Column('sequence', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('at', sa.String(length=40), nullable=False),
    sa.ForeignKeyConstraint(['evaluation_key'], ['evaluations.key'], ),
    sa.PrimaryKeyConstraint('evaluation_key', 'sequence')
    )


def downgrade() -> None:
    op.drop_table('transitions')
    op.drop_table('measurements')
    with op.batch_alter_table('ledger', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_ledger_campaign'))

    op.drop_table('ledger')
    op.drop_table('artifacts')
    with op.batch_alter_table('evaluations', schema=None) as batch_op:
        batch_op.drop_index('ix_evaluations_state')
        batch_op.drop_index('ix_evaluations_order')
        batch_op.drop_index(batch_op.f('ix_evaluations_content_key'))

    op.drop_table('evaluations')
    op.drop_table('rounds')
    op.drop_table('leases')
    op.drop_table('lab_results')
    op.drop_table('checkpoints')
    op.drop_table('workers')
    with op.batch_alter_table('lab_requests', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_lab_requests_campaign'))

    op.drop_table('lab_requests')
    op.drop_table('campaigns')
