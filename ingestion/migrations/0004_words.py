"""The field's own words for five columns; the tables stay as they are, so that older and newer workers run side by side."""

import django.db.models.deletion
from django.db import migrations, models


def _renamed(model: str, old: str, new: str, field: models.Field) -> list[migrations.operations.base.Operation]:
    return [migrations.RenameField(model, old, new), migrations.AlterField(model, new, field)]


class Migration(migrations.Migration):

    dependencies = [
        ('ingestion', '0003_deliveries_take_turns'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                *[
                    operation
                    for model in ('run', 'partition', 'delivery', 'deliverypart')
                    for operation in _renamed(
                        model,
                        'nudged_at',
                        'sent_at',
                        models.DateTimeField(blank=True, db_column='nudged_at', editable=False, help_text='When a task message was last sent.', null=True),
                    )
                ],
                *_renamed('delivery', 'looks', 'polls', models.PositiveIntegerField(db_column='looks', default=0, help_text='How often the commit was polled.')),
                *_renamed(
                    'delivery',
                    'holds',
                    'lock',
                    models.CharField(blank=True, db_column='holds', editable=False, help_text='What it loads alone: its pipeline at its destination.', max_length=60, null=True, unique=True),
                ),
                *_renamed('delivery', 'refused', 'rejected', models.BigIntegerField(db_column='refused', default=0)),
                *_renamed('deliverypart', 'refused', 'rejected', models.BigIntegerField(db_column='refused', default=0)),
            ],
        ),
        migrations.AlterField(
            model_name='part',
            name='delivery',
            field=models.ForeignKey(blank=True, help_text='The delivery whose destination rejected these rows.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='rejected_parts', to='ingestion.delivery'),
        ),
    ]
